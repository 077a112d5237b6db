// Starts the kernel that routes tokens: select-inl.h has its body, grid, block and bytes. Here is
// the warp that runs it.
#include <cuda_runtime.h>

#include <memory>

#include "c2r/core/cuda/cuda_stream.h"
#include "c2r/routing/cuda/cuda_select_launcher.h"
#include "c2r/routing/cuda/select-inl.h"

namespace c2r {
namespace {

constexpr int kWarpsOfBlock = 4;

// The warp of the calling thread. The bodies exist on the device only; nvcc asks for host versions
// because select_token() has one.
struct DeviceWarp {
  template <class T>
  class Lanes {
   public:
    C2R_HOST_DEVICE T& operator[](int) { return value_; }
    C2R_HOST_DEVICE const T& operator[](int) const { return value_; }

   private:
    T value_;
  };

  template <class Body>
  C2R_HOST_DEVICE void each(const Body& body) const {
#ifdef __CUDA_ARCH__
    body(static_cast<int>(threadIdx.x) % kWarpLanes);
#endif
  }
  template <class T>
  C2R_HOST_DEVICE T largest(const Lanes<T>& of) const {
    T result = of[0];
#ifdef __CUDA_ARCH__
    for (int distance = 16; distance > 0; distance /= 2) {
      const T other = __shfl_xor_sync(0xffffffffU, result, distance);
      result = other > result ? other : result;
    }
#endif
    return result;
  }
  C2R_HOST_DEVICE float sum_of_neighbours(const Lanes<float>& of) const {
    float sum = of[0];
#ifdef __CUDA_ARCH__
    for (int distance = 1; distance < 16; distance *= 2) {
      sum += __shfl_xor_sync(0xffffffffU, sum, distance);
    }
    sum = __shfl_sync(0xffffffffU, sum, 0);
#endif
    return sum;
  }
  C2R_HOST_DEVICE void report(std::uint64_t* first_invalid, std::uint64_t position) const {
#ifdef __CUDA_ARCH__
    static_assert(sizeof(unsigned long long) == sizeof(std::uint64_t));
    atomicMin(reinterpret_cast<unsigned long long*>(first_invalid),
              static_cast<unsigned long long>(position));
#endif
  }
};

__global__ void __launch_bounds__(kWarpsOfBlock* kWarpLanes)
    select_kernel(const SelectTokens task) {
  const std::int64_t token =
      static_cast<std::int64_t>(blockIdx.x) * kWarpsOfBlock + threadIdx.x / kWarpLanes;
  if (token < task.num_tokens) select_token(DeviceWarp{}, task, token);
}

class CudaSelectLauncher final : public SelectLauncher {
 public:
  void launch(const SelectTokens& task, DeviceStream& stream) override {
    const std::int64_t num_blocks = (task.num_tokens + kWarpsOfBlock - 1) / kWarpsOfBlock;
    select_kernel<<<static_cast<unsigned>(num_blocks), kWarpsOfBlock * kWarpLanes, 0,
                    static_cast<cudaStream_t>(stream.native())>>>(task);
    check_cuda(cudaGetLastError(), "the launch of the routing kernel");
  }
};

}  // namespace

std::unique_ptr<SelectLauncher> make_cuda_select_launcher() {
  return std::make_unique<CudaSelectLauncher>();
}

}  // namespace c2r
