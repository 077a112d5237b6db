// The bodies of the kernels that sum the rows of each source, and of their gradients, for the
// operators of c2r.torch: one source for devices and for the host.
//
// SumBySource: a block for each source; num_threads() threads, each with a vector of columns.
// SumBySourceGradients: a warp for each row, in blocks of 4 warps. V = kVector is 8 if `width` is a
// multiple of 8 and all rows are aligned to 16 bytes, and else 1. No shared memory, no atomics.
//
// Bytes, s = size of an element, for each row of `width` elements:
//   SumBySource           reads s width + 8, and 4 of a weight; writes s width for each source
//   SumBySourceGradients  reads 2 s width + 12; writes s width + 4
#pragma once

#include <cstddef>
#include <cstdint>

#include "c2r/core/cuda/host_device.h"
#include "c2r/core/cuda/row_values.h"
#include "c2r/core/cuda/weigh_row.h"
#include "c2r/core/element.h"

namespace c2r {

/// sum of a source = the sum over its rows, in their order, of weight x row: each product and each
/// addition is rounded to f32, and the sum to `type`. Zero for a source without rows.
struct SumBySource {
  const std::byte* rows = nullptr;        // [num_rows, width] of `type`
  const float* weights = nullptr;         // [num_rows], or null: 1
  const std::int64_t* order = nullptr;    // [num_rows], rows by source
  const std::int64_t* offsets = nullptr;  // [num_sources + 1], into `order`
  std::byte* sums = nullptr;              // [num_sources, width] of `type`
  std::int64_t num_sources = 0, width = 0;
  ElementType type = ElementType::kF32;

  std::int64_t num_blocks() const { return num_sources; }
  bool is_vectorized() const {
    return width % kRowVector == 0 && is_aligned_for_vectors(rows) && is_aligned_for_vectors(sums);
  }
  template <int kVector>
  C2R_HOST_DEVICE void run(std::int64_t source, const ThreadColumns& columns) const {
    const std::int64_t row_bytes = width * element_bytes(type);
    for_each_column<kVector>(columns, width, [&](std::int64_t c) {
      RowValues<kVector> sum = {};
      for (std::int64_t i = offsets[source]; i < offsets[source + 1]; ++i) {
        const std::int64_t row = order[i];
        const auto values = load_values<kVector>(rows + row * row_bytes, type, c);
        const float weight = weights == nullptr ? 1.0F : weights[row];
        for (int j = 0; j < kVector; ++j) sum.v[j] += weight * values.v[j];
      }
      store_values(sums + source * row_bytes, type, c, sum);
    });
  }
};

/// The gradients of SumBySource with weights: of a row weight x gradient of its source, of a weight
/// <gradient of its source, row>. The sum has the order of WeighRows.
struct SumBySourceGradients {
  const std::byte* dsums = nullptr;     // [num_sources, width] of `type`
  const std::byte* rows = nullptr;      // [num_rows, width] of `type`
  const float* weights = nullptr;       // [num_rows]
  const std::int64_t* index = nullptr;  // [num_rows], the source of each row
  std::byte* drows = nullptr;           // [num_rows, width] of `type`
  float* dweights = nullptr;            // [num_rows]
  std::int64_t num_rows = 0, width = 0;
  ElementType type = ElementType::kF32;

  std::int64_t num_blocks() const { return num_rows; }
  bool is_vectorized() const {
    return width % kRowVector == 0 && is_aligned_for_vectors(dsums) &&
           is_aligned_for_vectors(rows) && is_aligned_for_vectors(drows);
  }
  template <int kVector, class Warp>
  C2R_HOST_DEVICE void run_in_warp(const Warp& warp, std::int64_t row) const {
    const std::int64_t row_bytes = width * element_bytes(type);
    const std::byte* const dsum = dsums + index[row] * row_bytes;
    const float product = weigh_row<kVector>(warp, rows + row * row_bytes, dsum, weights[row], type,
                                             width, drows + row * row_bytes);
    warp.each([&](int lane) {
      if (lane == 0) dweights[row] = product;
    });
  }
};

}  // namespace c2r
