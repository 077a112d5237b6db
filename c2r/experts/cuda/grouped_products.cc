// Says each kind of product in the column-major words of BLAS.
#include "c2r/experts/cuda/grouped_products.h"

namespace c2r {

BlasProduct blas_product(ProductKind kind, const DeviceProduct& product) {
  const auto m = static_cast<int>(product.m), n = static_cast<int>(product.n),
             k = static_cast<int>(product.k);
  const bool is_a_transposed = kind == ProductKind::kTransposedTimes,
             is_b_transposed = kind == ProductKind::kTimesTransposed;
  return {.transposes_a = is_b_transposed,
          .transposes_b = is_a_transposed,
          .m = n,
          .n = m,
          .k = k,
          .a = product.b,
          .b = product.a,
          .c = product.out,
          .lda = is_b_transposed ? k : n,
          .ldb = is_a_transposed ? m : k,
          .ldc = n};
}

}  // namespace c2r
