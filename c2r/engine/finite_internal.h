// Checks that the logits of a model are finite before they are used.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>

#include "c2r/core/error.h"

namespace c2r {

inline bool are_finite(std::span<const float> logits) {
  return std::ranges::all_of(logits, [](float v) { return std::isfinite(v); });
}

/// @throws Error(kInvalidFile) if a logit is not finite
inline void require_finite(std::span<const float> logits) {
  C2R_REQUIRE(are_finite(logits), kInvalidFile,
              "the model's logits are not finite: its weights hold NaN, or are too large");
}

}  // namespace c2r
