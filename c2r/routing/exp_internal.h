// exp and sigmoid in float whose every rounding is fixed, so that scalar code and vectors of any
// width agree to the bit. The vector versions in scores_internal.h repeat these steps.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

namespace c2r::exp_constants {

// e^x = 2^t, t = x log2(e) = n + f with n = round(t), |f| <= 1/2.
inline constexpr float kLog2e = 0x1.715476p+0f;
// Between -kMax and kMax, 2^t and the intermediate results are normal numbers.
inline constexpr float kMax = 126.0f;
// 1.5 * 2^23: adding it rounds to an integer, which is then found in the low bits of the sum.
inline constexpr float kRound = 12582912.0f;
// 2^f ~ 1 + kC1 f + ... + kC5 f^5, with the least largest relative error: 1.9 * 2^-24.
inline constexpr float kC1 = 0x1.62e42ap-1f;
inline constexpr float kC2 = 0x1.ebf9bcp-3f;
inline constexpr float kC3 = 0x1.c6b752p-5f;
inline constexpr float kC4 = 0x1.3cea8ap-7f;
inline constexpr float kC5 = 0x1.5bba12p-10f;

}  // namespace c2r::exp_constants

namespace c2r {

/// 2^t for |t| <= 126; 1 at 0.
inline float exp2_bounded(float t) {
  using namespace exp_constants;
  const float shifted = t + kRound;
  const float f = t - (shifted - kRound);
  // In an order that leaves few steps to wait for.
  const float f2 = f * f;
  const float c23 = kC2 + kC3 * f;
  const float c45 = kC4 + kC5 * f;
  const float tail = c23 + c45 * f2;
  const float p = (kC1 * f + tail * f2) + 1.0f;
  const std::uint32_t exponent = std::bit_cast<std::uint32_t>(shifted) << 23;
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(p) + exponent);
}

/// e^x for x <= 0, -infinity included: within (5 + 1.5 |x|) 2^-24 of it, relatively, for
/// x >= -87.3; below that 2^-126, the smallest normal number. The part in |x| is what rounding
/// x itself to float does as well.
inline float exp_of_negative(float x) {
  using namespace exp_constants;
  return exp2_bounded(std::max(x * kLog2e, -kMax));
}

/// 1 / (1 + e^-x): within (7 + 1.5 |x|) 2^-24 of it, relatively, for x >= -87.3.
inline float sigmoid(float x) {
  using namespace exp_constants;
  return 1.0f / (1.0f + exp2_bounded(std::min(std::max(x * -kLog2e, -kMax), kMax)));
}

}  // namespace c2r
