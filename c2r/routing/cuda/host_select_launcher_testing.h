// What a fake device routes with: the kernels' own bodies, on a stream that runs late.
#pragma once

#include "c2r/core/cuda/fake_stream_testing.h"
#include "c2r/routing/cuda/device_router.h"
#include "c2r/routing/cuda/select-inl.h"
#include "c2r/routing/cuda/select_backward-inl.h"

namespace c2r::testing {

/// Runs the bodies of the kernels on the host, when the queue comes to it.
class HostSelectLauncher final : public SelectLauncher {
 public:
  void launch(const SelectTokens& task, DeviceStream& stream) override {
    dynamic_cast<FakeStream&>(stream).enqueue([task] {
      for (std::int64_t token = 0; token < task.num_tokens; ++token) {
        select_token(HostWarp{}, task, token);
      }
    });
  }
  void launch(const SelectGradients& task, DeviceStream& stream) override {
    dynamic_cast<FakeStream&>(stream).enqueue([task] {
      for (std::int64_t token = 0; token < task.num_tokens; ++token) {
        add_select_gradients(HostWarp{}, task, token);
      }
    });
  }
};

}  // namespace c2r::testing
