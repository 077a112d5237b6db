// Checks the shapes of matrices.
#include "c2r/core/matrix.h"

namespace c2r {

std::size_t num_elements(std::int64_t rows, std::int64_t cols) {
  std::int64_t product = 0;
  C2R_REQUIRE(rows >= 0 && cols >= 0 && !__builtin_mul_overflow(rows, cols, &product),
              kInvalidArgument, "a matrix cannot have the shape [{}, {}]", rows, cols);
  return static_cast<std::size_t>(product);
}

}  // namespace c2r
