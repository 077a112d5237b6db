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

template <class Kernel, int kVector>
__global__ void __launch_bounds__(kThreadsOfBlock)
    row_kernel_of_warps(const Kernel kernel, std::int64_t num_rows) {
  const std::int64_t row = item_of_warp();
  if (row < num_rows) kernel.template run_in_warp<kVector>(DeviceWarp{}, row);
}

template <int kVector, class Kernel>
void launch_row_kernel(const Kernel& body, cudaStream_t stream) {
  const std::int64_t num_rows = body.num_blocks();
  if constexpr (kRunsInWarps<Kernel>) {
    row_kernel_of_warps<Kernel, kVector>
        <<<num_blocks_of_warps(num_rows), kThreadsOfBlock, 0, stream>>>(body, num_rows);
  } else {
    const auto block = static_cast<unsigned>(num_threads(body.hidden(), kVector == kRowVector));
    row_kernel<Kernel, kVector><<<static_cast<unsigned>(num_rows), block, 0, stream>>>(body);
  }
}

class CudaRowLauncher final : public RowLauncher {
 public:
  void launch(const RowKernel& kernel, DeviceStream& stream) override {
    auto* const native = static_cast<cudaStream_t>(stream.native());
    std::visit(
        [&](const auto& body) {
          kernel.is_vectorized ? launch_row_kernel<kRowVector>(body, native)
                               : launch_row_kernel<1>(body, native);
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
