// What a fake device moves rows with: the kernels' own bodies, on a stream that runs late.
#pragma once

#include <variant>

#include "c2r/core/cuda/fake_stream_testing.h"
#include "c2r/dispatch/cuda/device_row_mover.h"
#include "c2r/dispatch/cuda/row_kernels-inl.h"

namespace c2r::testing {

/// Runs the bodies of kernels on the host, when the queue comes to them.
class HostRowLauncher final : public RowLauncher {
 public:
  void launch(const RowKernel& kernel, DeviceStream& stream) override {
    dynamic_cast<FakeStream&>(stream).enqueue([kernel] {
      std::visit(
          [&](const auto& body) { kernel.is_vectorized ? run<kRowVector>(body) : run<1>(body); },
          kernel.kernel);
    });
  }

 private:
  template <int kVector, class Kernel>
  static void run(const Kernel& body) {
    constexpr std::int64_t kThreads = 3;
    for (std::int64_t block = 0; block < body.num_blocks(); ++block) {
      if constexpr (kRunsInWarps<Kernel>) {
        body.template run_in_warp<kVector>(HostWarp{}, block);
      } else {
        for (std::int64_t thread = 0; thread < kThreads; ++thread) {
          body.template run<kVector>(block, {.first = thread, .step = kThreads});
        }
      }
    }
  }
};

}  // namespace c2r::testing
