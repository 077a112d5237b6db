// Weight matrices as checkpoints store them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "c2r/core/bf16.h"
#include "c2r/core/half.h"

namespace c2r {

enum class WeightType { kF32, kF16, kBf16 };

constexpr std::int64_t weight_type_bytes(WeightType type) {
  return type == WeightType::kF32 ? 4 : 2;
}

/// Somebody else's weights, [num_outputs, num_inputs], row-major, aligned to their type.
struct WeightView {
  const std::byte* data = nullptr;
  WeightType type = WeightType::kF32;
  std::int64_t num_outputs = 0, num_inputs = 0;
  std::int64_t stride = 0;  // elements from one row to the next, at least num_inputs

  const std::byte* row(std::int64_t output) const {
    return data + output * stride * weight_type_bytes(type);
  }
  std::int64_t num_bytes() const { return num_outputs * num_inputs * weight_type_bytes(type); }
};

inline WeightView weight_view(std::span<const std::byte> bytes, WeightType type,
                              std::int64_t num_outputs, std::int64_t num_inputs) {
  return {bytes.data(), type, num_outputs, num_inputs, num_inputs};
}

/// `row` of a matrix of `type`, as floats. `out` has one element for each input.
inline void copy_weights(const std::byte* row, WeightType type, std::span<float> out) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    switch (type) {
      case WeightType::kF32:
        out[i] = reinterpret_cast<const float*>(row)[i];
        break;
      case WeightType::kF16:
        out[i] = to_float(reinterpret_cast<const Half*>(row)[i]);
        break;
      case WeightType::kBf16:
        out[i] = to_float(reinterpret_cast<const Bf16*>(row)[i]);
        break;
    }
  }
}

}  // namespace c2r
