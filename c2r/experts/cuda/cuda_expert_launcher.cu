// Starts the kernels around the experts' products: expert_kernels-inl.h has their bodies, grid, block
// and bytes.
#include <cuda_runtime.h>

#include <memory>
#include <variant>

#include "c2r/core/cuda/cuda_stream.h"
#include "c2r/experts/cuda/cuda_expert_launcher.h"
#include "c2r/experts/cuda/expert_kernels-inl.h"

namespace c2r {
namespace {

template <class Kernel>
__global__ void __launch_bounds__(256) expert_kernel(const Kernel kernel) {
  kernel.run(blockIdx.x, {.first = static_cast<std::int64_t>(threadIdx.x),
                          .step = static_cast<std::int64_t>(blockDim.x)});
}

class CudaExpertLauncher final : public ExpertLauncher {
 public:
  void launch(const ExpertKernel& kernel, DeviceStream& stream) override {
    auto* const native = static_cast<cudaStream_t>(stream.native());
    std::visit(
        [&](const auto& body) {
          const auto grid = static_cast<unsigned>(body.num_blocks());
          const auto block = static_cast<unsigned>(num_threads(body.num_columns(), true));
          expert_kernel<<<grid, block, 0, native>>>(body);
        },
        kernel.kernel);
    check_cuda(cudaGetLastError(), "the launch of a kernel of the experts");
  }
};

}  // namespace

std::unique_ptr<ExpertLauncher> make_cuda_expert_launcher() {
  return std::make_unique<CudaExpertLauncher>();
}

}  // namespace c2r
