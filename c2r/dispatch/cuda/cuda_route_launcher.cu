// Starts the kernels that make routes: route_kernels-inl.h has their bodies, grid, block and bytes.
#include <cuda_runtime.h>

#include <memory>
#include <variant>

#include "c2r/core/cuda/cuda_stream.h"
#include "c2r/dispatch/cuda/cuda_route_launcher.h"
#include "c2r/dispatch/cuda/route_kernels-inl.h"

namespace c2r {
namespace {

template <class Kernel>
__global__ void __launch_bounds__(kRouteThreads)
    route_kernel(const Kernel kernel, std::int64_t num_threads) {
  const std::int64_t thread = static_cast<std::int64_t>(blockIdx.x) * kRouteThreads + threadIdx.x;
  if (thread < num_threads) kernel.run(thread);
}

class CudaRouteLauncher final : public RouteLauncher {
 public:
  void launch(const RouteKernel& kernel, DeviceStream& stream) override {
    auto* const native = static_cast<cudaStream_t>(stream.native());
    std::visit(
        [&](const auto& body) {
          const std::int64_t num_threads = body.num_threads();
          const std::int64_t num_blocks = (num_threads + kRouteThreads - 1) / kRouteThreads;
          if (num_blocks == 0) return;
          route_kernel<<<static_cast<unsigned>(num_blocks), kRouteThreads, 0, native>>>(
              body, num_threads);
        },
        kernel.kernel);
    check_cuda(cudaGetLastError(), "the launch of a kernel that makes routes");
  }
};

}  // namespace

std::unique_ptr<RouteLauncher> make_cuda_route_launcher() {
  return std::make_unique<CudaRouteLauncher>();
}

}  // namespace c2r
