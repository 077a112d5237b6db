// A warp as an object, so that a kernel's body is one source for devices and for the tests on the
// host.
//
// each(body) calls body(lane) for every lane, on a device for the lane of the calling thread alone;
// Lanes<T> holds a T for each lane; reductions give all lanes the result, in an order that is the
// same on both.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "c2r/core/cuda/host_device.h"

namespace c2r {

inline constexpr int kWarpLanes = 32;

/// A warp on the host.
struct HostWarp {
  template <class T>
  class Lanes {
   public:
    T& operator[](int lane) { return values_[static_cast<std::size_t>(lane)]; }
    const T& operator[](int lane) const { return values_[static_cast<std::size_t>(lane)]; }

   private:
    std::array<T, kWarpLanes> values_{};
  };

  template <class Body>
  void each(const Body& body) const {
    for (int lane = 0; lane < kWarpLanes; ++lane) body(lane);
  }
  template <class T>
  T largest(const Lanes<T>& of) const {
    T result = of[0];
    for (int lane = 1; lane < kWarpLanes; ++lane) result = of[lane] > result ? of[lane] : result;
    return result;
  }
  /// The sum of the first `num_lanes` lanes, a power of two: neighbours are added, 16 -> 8 -> 4 ...
  float sum_of_neighbours(Lanes<float> of, int num_lanes) const {
    for (int half = 1; half < num_lanes; half *= 2) {
      for (int lane = 0; lane < num_lanes; lane += 2 * half) of[lane] += of[lane + half];
    }
    return of[0];
  }
  /// *smallest = position, if that is smaller.
  void report(std::uint64_t* smallest, std::uint64_t position) const {
    if (position < *smallest) *smallest = position;
  }
};

#ifdef __CUDACC__
/// The warp of the calling thread, in blocks of one dimension. The bodies exist on the device only;
/// nvcc asks for host versions because the bodies of kernels have one.
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
  C2R_HOST_DEVICE float sum_of_neighbours(const Lanes<float>& of, int num_lanes) const {
    float sum = of[0];
#ifdef __CUDA_ARCH__
    for (int distance = 1; distance < num_lanes; distance *= 2) {
      sum += __shfl_xor_sync(0xffffffffU, sum, distance);
    }
    sum = __shfl_sync(0xffffffffU, sum, 0);
#endif
    return sum;
  }
  C2R_HOST_DEVICE void report(std::uint64_t* smallest, std::uint64_t position) const {
#ifdef __CUDA_ARCH__
    static_assert(sizeof(unsigned long long) == sizeof(std::uint64_t));
    atomicMin(reinterpret_cast<unsigned long long*>(smallest),
              static_cast<unsigned long long>(position));
#endif
  }
};

/// Kernels of one warp for each item, in blocks of one dimension.
inline constexpr int kWarpsOfBlock = 4;
inline constexpr int kThreadsOfBlock = kWarpsOfBlock * kWarpLanes;

/// @returns the blocks that `num_items` take
inline unsigned num_blocks_of_warps(std::int64_t num_items) {
  return static_cast<unsigned>((num_items + kWarpsOfBlock - 1) / kWarpsOfBlock);
}

/// @returns the item of the calling thread's warp, which may be behind the last one
__device__ inline std::int64_t item_of_warp() {
  return static_cast<std::int64_t>(blockIdx.x) * kWarpsOfBlock + threadIdx.x / kWarpLanes;
}
#endif

}  // namespace c2r
