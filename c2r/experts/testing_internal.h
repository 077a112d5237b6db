// Random weights and rows for the tests and benchmarks of this module.
#pragma once

#include <cmath>
#include <random>
#include <vector>

#include "c2r/core/element.h"
#include "c2r/core/matrix.h"

namespace c2r::testing {

/// A number in [-1, 1), the same on every platform.
inline float random_number(std::mt19937& rng) {
  return static_cast<float>(static_cast<double>(rng()) / 0x1p31 - 1);
}

inline Matrix<float> random_matrix(std::int64_t rows, std::int64_t cols, std::mt19937& rng) {
  Matrix<float> m(rows, cols);
  for (float& value : m.all()) value = random_number(rng);
  return m;
}

/// Random weights and a view of them. Between two rows are `gap` elements of NaN, so that a kernel
/// that reads beyond a row gives NaN.
struct RandomWeights {
  RandomWeights(std::int64_t num_outputs, std::int64_t num_inputs, ElementType type,
                std::mt19937& rng, std::int64_t gap = 0)
      : stride(num_inputs + gap),
        bytes(static_cast<std::size_t>(num_outputs * stride * element_bytes(type))),
        view(bytes.data(), type, num_outputs, num_inputs, stride) {
    for (std::int64_t i = 0; i < num_outputs * stride; ++i) {
      store_element(bytes.data(), type, i, i % stride < num_inputs ? random_number(rng) : NAN);
    }
  }

  std::int64_t stride;
  std::vector<std::byte> bytes;
  RowsView view;
};

}  // namespace c2r::testing
