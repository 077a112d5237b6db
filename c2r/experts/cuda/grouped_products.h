// The interface of grouped products on a device: the products of all experts in one call.
//
// CublasProducts is the implementation for NVIDIA GPUs; HostProducts is the one of tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "c2r/core/cuda/device_stream.h"

namespace c2r {

/// Which operands of a product are read transposed. Sums are f32.
enum class ProductKind {
  kTimesTransposed,  // out [m, n] = a [m, k] x b [n, k]^T, rounded to bf16: outputs of a projection
  kTimes,            // out [m, n] = a [m, k] x b [k, n], rounded to bf16: gradients of its inputs
  kTransposedTimes,  // out [m, n] = a [k, m]^T x b [k, n], in f32: gradients of its weights
};

/// One product. `a` and `b` are bf16; all three matrices are in device memory, row-major without
/// gaps, and begin at multiples of 16 bytes.
struct DeviceProduct {
  const std::byte* a = nullptr;
  const std::byte* b = nullptr;
  std::byte* out = nullptr;
  std::int64_t m = 0, n = 0, k = 0;
  bool adds = false;  // kTransposedTimes: adds to `out` instead of overwriting it
};

class GroupedProducts {
 public:
  GroupedProducts() = default;
  GroupedProducts(const GroupedProducts&) = delete;
  GroupedProducts& operator=(const GroupedProducts&) = delete;
  virtual ~GroupedProducts() = default;

  /// Enqueues products, no two of which write the same memory.
  /// @param products m, n and k are positive and fit 31 bits; n and the columns of `a` are
  ///        multiples of 8
  /// @throws Error(kTransport) if the device refuses
  virtual void run(ProductKind kind, std::span<const DeviceProduct> products,
                   DeviceStream& stream) = 0;
};

/// A product as BLAS takes it: column-major, so that a row-major matrix is its transpose there, and
/// the operands change places. c [m, n] = op(a) [m, k] x op(b) [k, n], op: transposed if it says
/// so.
struct BlasProduct {
  bool transposes_a = false, transposes_b = false;
  int m = 0, n = 0, k = 0;
  const std::byte* a = nullptr;
  const std::byte* b = nullptr;
  std::byte* c = nullptr;
  int lda = 0, ldb = 0, ldc = 0;  // elements from one column to the next
};

/// @returns the call of BLAS for a product
BlasProduct blas_product(ProductKind kind, const DeviceProduct& product);

}  // namespace c2r
