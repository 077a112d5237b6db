// Starts the kernels of c2r.torch's operators: choose-inl.h and sums_by_source-inl.h have their
// bodies, grid, block and bytes.
#include <cuda_runtime.h>

#include <cstdint>
#include <string>
#include <type_traits>
#include <variant>

#include "c2r/core/cuda/cuda_stream.h"
#include "python/src/cuda/launch_kernels.h"

namespace c2r::python {
namespace {

__global__ void __launch_bounds__(kThreadsOfBlock) choose_kernel(const ChooseExperts kernel) {
  const std::int64_t token = item_of_warp();
  if (token < kernel.num_tokens) kernel.run_in_warp(DeviceWarp{}, token);
}

template <int kVector>
__global__ void __launch_bounds__(kThreadsOfBlock)
    gradients_kernel(const SumBySourceGradients kernel) {
  const std::int64_t row = item_of_warp();
  if (row < kernel.num_rows) kernel.run_in_warp<kVector>(DeviceWarp{}, row);
}

template <int kVector>
__global__ void __launch_bounds__(256) sum_kernel(const SumBySource kernel) {
  kernel.run<kVector>(blockIdx.x, {.first = static_cast<std::int64_t>(threadIdx.x),
                                   .step = static_cast<std::int64_t>(blockDim.x)});
}

void launch(const ChooseExperts& kernel, cudaStream_t stream) {
  choose_kernel<<<num_blocks_of_warps(kernel.num_tokens), kThreadsOfBlock, 0, stream>>>(kernel);
}

template <int kVector>
void launch_with_vectors(const SumBySourceGradients& kernel, cudaStream_t stream) {
  gradients_kernel<kVector>
      <<<num_blocks_of_warps(kernel.num_rows), kThreadsOfBlock, 0, stream>>>(kernel);
}

template <int kVector>
void launch_with_vectors(const SumBySource& kernel, cudaStream_t stream) {
  const auto block = static_cast<unsigned>(num_threads(kernel.width, kVector == kRowVector));
  sum_kernel<kVector><<<static_cast<unsigned>(kernel.num_sources), block, 0, stream>>>(kernel);
}

template <class Kernel>
void launch(const Kernel& kernel, cudaStream_t stream) {
  kernel.is_vectorized() ? launch_with_vectors<kRowVector>(kernel, stream)
                         : launch_with_vectors<1>(kernel, stream);
}

}  // namespace

void launch_on_cuda(const std::variant<ChooseExperts, SumBySource, SumBySourceGradients>& kernel,
                    int device, std::uintptr_t stream) {
  check_cuda(cudaSetDevice(device), "cudaSetDevice");
  std::visit([&](const auto& body) { launch(body, reinterpret_cast<cudaStream_t>(stream)); },
             kernel);
  check_cuda(cudaGetLastError(), "the launch of a kernel of an operator");
}

std::string why_not_on_cuda(int device) {
  cudaError_t status = cudaSetDevice(device);
  cudaFuncAttributes attributes = {};
  if (status == cudaSuccess) status = cudaFuncGetAttributes(&attributes, choose_kernel);
  (void)cudaGetLastError();  // so that no later call returns it
  return status == cudaSuccess ? "" : cudaGetErrorString(status);
}

}  // namespace c2r::python
