// Starts the kernels that move rows: row_kernels-inl.h has their bodies, grid, block and bytes.
#include <cuda_runtime.h>

#include <memory>
#include <variant>

#include "c2r/core/cuda/cuda_stream.h"
#include "c2r/dispatch/cuda/cuda_row_launcher.h"
#include "c2r/dispatch/cuda/row_kernels-inl.h"

namespace c2r {
namespace {

template <class Kernel, int kVector>
__global__ void __launch_bounds__(256) row_kernel(const Kernel kernel) {
  kernel.template run<kVector>(blockIdx.x, {.first = static_cast<std::int64_t>(threadIdx.x),
                                            .step = static_cast<std::int64_t>(blockDim.x)});
}

class CudaRowLauncher final : public RowLauncher {
 public:
  void launch(const RowKernel& kernel, DeviceStream& stream) override {
    auto* const native = static_cast<cudaStream_t>(stream.native());
    std::visit(
        [&](const auto& body) {
          using Kernel = std::decay_t<decltype(body)>;
          const std::int64_t num_blocks = body.num_blocks();
          const auto grid = static_cast<unsigned>(num_blocks);
          const auto block =
              static_cast<unsigned>(num_threads(body.hidden(), kernel.is_vectorized));
          if (kernel.is_vectorized) {
            row_kernel<Kernel, kRowVector><<<grid, block, 0, native>>>(body);
          } else {
            row_kernel<Kernel, 1><<<grid, block, 0, native>>>(body);
          }
        },
        kernel.kernel);
    check_cuda(cudaGetLastError(), "the launch of a row kernel");
  }
};

}  // namespace

std::unique_ptr<RowLauncher> make_cuda_row_launcher() {
  return std::make_unique<CudaRowLauncher>();
}

}  // namespace c2r
