// What a fake device makes routes with: the kernels' own bodies, on a stream that runs late.
#pragma once

#include <variant>

#include "c2r/core/cuda/fake_stream_testing.h"
#include "c2r/dispatch/cuda/device_routes.h"
#include "c2r/dispatch/cuda/route_kernels-inl.h"

namespace c2r::testing {

/// Threads run in descending order, so that none may rely on one before it.
class HostRouteLauncher final : public RouteLauncher {
 public:
  void launch(const RouteKernel& kernel, DeviceStream& stream) override {
    dynamic_cast<FakeStream&>(stream).enqueue([kernel] {
      std::visit(
          [](const auto& body) {
            for (auto thread = body.num_threads(); thread > 0; --thread) body.run(thread - 1);
          },
          kernel.kernel);
    });
  }
};

}  // namespace c2r::testing
