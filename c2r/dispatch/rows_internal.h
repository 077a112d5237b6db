// Rows in the element type of the wire, and weighted sums of rows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "c2r/dispatch/dispatch.h"

namespace c2r {

/// Rows of one type in consecutive memory.
struct WireRows {
  std::byte* data = nullptr;
  RowType type = RowType::kF32;
  std::int64_t hidden = 0;

  std::int64_t row_bytes() const { return hidden * element_bytes(type); }
  std::byte* row(std::int64_t r) const { return data + r * row_bytes(); }
};

/// Rounds `row` into row `r` of `to`.
void encode_row(std::span<const float> row, const WireRows& to, std::int64_t r);
/// Row `r` of `from`, exactly.
void decode_row(const WireRows& from, std::int64_t r, std::span<float> row);
/// sum = weight * row, or sum += weight * row.
void scale_row(std::span<const float> row, float weight, std::span<float> sum);
void add_row(std::span<const float> row, float weight, std::span<float> sum);
void add_row(const WireRows& from, std::int64_t r, float weight, std::span<float> sum);

}  // namespace c2r
