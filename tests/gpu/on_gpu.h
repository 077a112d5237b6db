// What the tests on an NVIDIA GPU share.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "c2r/core/cuda/cuda_stream.h"

namespace c2r {

/// Fails where there is no GPU: these tests are asked for by name.
class OnGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_GT(num_cuda_devices(), 0) << "there is no NVIDIA GPU that this process can use";
  }
};

/// @returns what is in device memory, after all tasks of the stream so far
template <class T>
std::vector<T> download(DeviceStream& stream, const DeviceBuffer& from) {
  std::vector<T> to(from.bytes().size() / sizeof(T));
  const PinnedBuffer pinned(stream, std::ssize(from.bytes()));
  stream.copy_to_pinned(from.bytes(), pinned.data());
  stream.record()->synchronize();
  if (!to.empty()) std::memcpy(to.data(), pinned.data(), from.bytes().size());
  return to;
}

}  // namespace c2r
