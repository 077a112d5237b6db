// Starts the kernels that route tokens and that give logits their gradients: select-inl.h and
// select_backward-inl.h have their bodies, grid, block and bytes.
#include <cuda_runtime.h>

#include <memory>

#include "c2r/core/cuda/cuda_stream.h"
#include "c2r/routing/cuda/cuda_select_launcher.h"
#include "c2r/routing/cuda/select-inl.h"
#include "c2r/routing/cuda/select_backward-inl.h"

namespace c2r {
namespace {

__global__ void __launch_bounds__(kThreadsOfBlock) select_kernel(const SelectTokens task) {
  const std::int64_t token = item_of_warp();
  if (token < task.num_tokens) select_token(DeviceWarp{}, task, token);
}

__global__ void __launch_bounds__(kThreadsOfBlock)
    select_backward_kernel(const SelectGradients task) {
  const std::int64_t token = item_of_warp();
  if (token < task.num_tokens) add_select_gradients(DeviceWarp{}, task, token);
}

template <class Task>
void launch_for_tokens(void (*kernel)(Task), const Task& task, DeviceStream& stream) {
  kernel<<<num_blocks_of_warps(task.num_tokens), kThreadsOfBlock, 0,
           static_cast<cudaStream_t>(stream.native())>>>(task);
  check_cuda(cudaGetLastError(), "the launch of a routing kernel");
}

class CudaSelectLauncher final : public SelectLauncher {
 public:
  void launch(const SelectTokens& task, DeviceStream& stream) override {
    launch_for_tokens(select_kernel, task, stream);
  }
  void launch(const SelectGradients& task, DeviceStream& stream) override {
    launch_for_tokens(select_backward_kernel, task, stream);
  }
};

}  // namespace

std::unique_ptr<SelectLauncher> make_cuda_select_launcher() {
  return std::make_unique<CudaSelectLauncher>();
}

}  // namespace c2r
