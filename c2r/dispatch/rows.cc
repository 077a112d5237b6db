// Rows between floats and the element type of the wire, and weighted sums of rows.
#include <algorithm>
#include <cstring>

#include "c2r/core/bf16.h"
#include "c2r/dispatch/rows_internal.h"

namespace c2r {

void encode_row(std::span<const float> row, const WireRows& to, std::int64_t r) {
  std::byte* const out = to.row(r);
  if (to.type == RowType::kF32) {
    std::memcpy(out, row.data(), row.size_bytes());
    return;
  }
  auto* const bits = reinterpret_cast<Bf16*>(out);
  for (std::size_t c = 0; c < row.size(); ++c) bits[c] = to_bf16(row[c]);
}

void decode_row(const WireRows& from, std::int64_t r, std::span<float> row) {
  const std::byte* const in = from.row(r);
  if (from.type == RowType::kF32) {
    std::memcpy(row.data(), in, row.size_bytes());
    return;
  }
  const auto* const bits = reinterpret_cast<const Bf16*>(in);
  for (std::size_t c = 0; c < row.size(); ++c) row[c] = to_float(bits[c]);
}

void scale_row(std::span<const float> row, float weight, std::span<float> sum) {
  for (std::size_t c = 0; c < sum.size(); ++c) sum[c] = weight * row[c];
}

void add_row(std::span<const float> row, float weight, std::span<float> sum) {
  for (std::size_t c = 0; c < sum.size(); ++c) sum[c] += weight * row[c];
}

void add_row(const WireRows& from, std::int64_t r, float weight, std::span<float> sum) {
  const std::byte* const in = from.row(r);
  if (from.type == RowType::kF32) {
    return add_row({reinterpret_cast<const float*>(in), sum.size()}, weight, sum);
  }
  const auto* const bits = reinterpret_cast<const Bf16*>(in);
  for (std::size_t c = 0; c < sum.size(); ++c) sum[c] += weight * to_float(bits[c]);
}

}  // namespace c2r
