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

constexpr int kWarpsOfBlock = 4;

__device__ std::int64_t row_of_warp() {
  return static_cast<std::int64_t>(blockIdx.x) * kWarpsOfBlock + threadIdx.x / kWarpLanes;
}

__global__ void __launch_bounds__(kWarpsOfBlock* kWarpLanes)
    choose_kernel(const ChooseExperts kernel) {
  const std::int64_t token = row_of_warp();
  if (token < kernel.num_tokens) kernel.run_in_warp(DeviceWarp{}, token);
}

template <int kVector>
__global__ void __launch_bounds__(kWarpsOfBlock* kWarpLanes)
    gradients_kernel(const SumBySourceGradients kernel) {
  const std::int64_t row = row_of_warp();
  if (row < kernel.num_rows) kernel.run_in_warp<kVector>(DeviceWarp{}, row);
}

template <int kVector>
__global__ void __launch_bounds__(256) sum_kernel(const SumBySource kernel) {
  kernel.run<kVector>(blockIdx.x, {.first = static_cast<std::int64_t>(threadIdx.x),
                                   .step = static_cast<std::int64_t>(blockDim.x)});
}

unsigned blocks_of_warps(std::int64_t num_warps) {
  return static_cast<unsigned>((num_warps + kWarpsOfBlock - 1) / kWarpsOfBlock);
}

void launch(const ChooseExperts& kernel, cudaStream_t stream) {
  choose_kernel<<<blocks_of_warps(kernel.num_tokens), kWarpsOfBlock * kWarpLanes, 0, stream>>>(
      kernel);
}

template <int kVector>
void launch_with_vectors(const SumBySourceGradients& kernel, cudaStream_t stream) {
  gradients_kernel<kVector>
      <<<blocks_of_warps(kernel.num_rows), kWarpsOfBlock * kWarpLanes, 0, stream>>>(kernel);
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
