// The fake device of one rank with its streams and its network, as tests of layers on devices use
// it.
#pragma once

#include <memory>

#include "c2r/core/cuda/fake_stream_testing.h"
#include "c2r/transport/device/fake_calls_testing.h"
#include "c2r/transport/device/staged_network.h"

namespace c2r::testing {

// Which stream runs its tasks at once; the others run theirs as late as possible.
enum class EarlyStream { kNone, kCompute, kTravel };
inline constexpr EarlyStream kStreamOrders[] = {EarlyStream::kNone, EarlyStream::kCompute,
                                                EarlyStream::kTravel};

struct FakeRankOptions {
  FakeWire* wire = nullptr;  // null: rows go through host memory
  int ignored_wait = -1;
  EarlyStream early = EarlyStream::kNone;
};

class FakeRank {
 public:
  FakeRank(Transport& transport, const FakeRankOptions& how)
      : compute_(device_, how.early == EarlyStream::kCompute),
        travel_(device_, how.early == EarlyStream::kTravel) {
    device_.ignore_wait(how.ignored_wait);
    if (how.wire != nullptr) {
      calls_ = std::make_unique<FakeCalls>(*how.wire, transport.rank());
      network_ = std::make_unique<StreamNetwork>(*calls_, compute_, travel_);
    } else {
      network_ = std::make_unique<StagedNetwork>(transport, compute_, travel_);
    }
  }

  FakeStream& compute() { return compute_; }
  DeviceNetwork& network() { return *network_; }

  /// Runs what is left in the streams.
  /// @returns the waits of the run
  int finish() {
    compute_.synchronize();
    travel_.synchronize();
    return device_.num_waits();
  }

 private:
  FakeDevice device_;
  FakeStream compute_, travel_;
  std::unique_ptr<FakeCalls> calls_;
  std::unique_ptr<DeviceNetwork> network_;
};

}  // namespace c2r::testing
