// exp and sigmoid in float whose every rounding is fixed, so that scalar code and vectors of any
// width agree to the bit. The vector versions in scores_internal.h repeat these steps.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

namespace c2r::exp_constants {

// e^x = 2^n e^r with n = round(x log2(e)), |r| <= ln(2) / 2.
inline constexpr float kLog2e = 0x1.715476p+0f;
// 1.5 * 2^23: adding it rounds to an integer, which is then found in the low bits of the sum.
inline constexpr float kRound = 12582912.0f;
// ln(2) in two parts. The high one has 10 significant bits, so that n * kLn2High is exact.
inline constexpr float kLn2High = 0.693359375f;
inline constexpr float kLn2Low = -2.12194440e-4f;
// e^r ~ 1 + r + r^2 (kC2 + kC3 r + ... + kC6 r^4): least largest relative error, 0.06 * 2^-24.
inline constexpr float kC2 = 0x1.fffffcp-2f;
inline constexpr float kC3 = 0x1.555492p-3f;
inline constexpr float kC4 = 0x1.5558f2p-5f;
inline constexpr float kC5 = 0x1.123a2p-7f;
inline constexpr float kC6 = 0x1.6a23dp-10f;
// Within +-kMax both e^x and the intermediate results are normal numbers.
inline constexpr float kMax = 87.0f;

}  // namespace c2r::exp_constants

namespace c2r {

/// e^x for |x| <= 87, within 3 * 2^-24 of it, relatively; exp(0) is 1 exactly.
inline float exp_bounded(float x) {
  using namespace exp_constants;
  const float shifted = x * kLog2e + kRound;
  const float n = shifted - kRound;
  const float r = (x - n * kLn2High) - n * kLn2Low;
  float p = kC6;
  p = p * r + kC5;
  p = p * r + kC4;
  p = p * r + kC3;
  p = p * r + kC2;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const std::uint32_t exponent = std::bit_cast<std::uint32_t>(shifted) << 23;
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(p) + exponent);
}

/// e^x for x <= 0, -infinity included; 0 below e^-87, about 1.6e-38.
inline float exp_of_negative(float x) {
  return x < -exp_constants::kMax ? 0.0f : exp_bounded(x);
}

/// 1 / (1 + e^-x), within 6 * 2^-24 of it, relatively; x beyond +-87 counts as +-87.
inline float sigmoid(float x) {
  const float bounded = std::min(std::max(x, -exp_constants::kMax), exp_constants::kMax);
  return 1.0f / (1.0f + exp_bounded(-bounded));
}

}  // namespace c2r
