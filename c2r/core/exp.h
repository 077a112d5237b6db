// exp and sigmoid in float whose every rounding is fixed, so that scalar code and vectors of any
// width and devices agree to the bit. The vector versions in c2r/routing/scores-inl.h repeat these
// steps; a*b+c is fused, rounded once, in all.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "c2r/core/cuda/host_device.h"

namespace c2r::exp_constants {

// e^x = 2^n 2^f with n = round(x log2(e)), f = x log2(e) - n, |f| <= 1/2.
inline constexpr float kLog2e = 0x1.715476p+0f;
// Between -kMax and kMax, |n| <= 126, so that e^x is a normal number.
inline constexpr float kMax = 87.3f;
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

/// 2^(x log2_base) for |x| <= kMax; 1 at 0.
/// @param log2_base kLog2e or -kLog2e
C2R_HOST_DEVICE inline float power_bounded(float x, float log2_base) {
  using namespace exp_constants;
  const float shifted = std::fma(x, log2_base, kRound);
  const float f = std::fma(x, log2_base, kRound - shifted);
  float p = std::fma(kC5, f, kC4);
  p = std::fma(p, f, kC3);
  p = std::fma(p, f, kC2);
  p = std::fma(p, f, kC1);
  p = std::fma(p, f, 1.0f);
  const std::uint32_t exponent = std::bit_cast<std::uint32_t>(shifted) << 23;
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(p) + exponent);
}

/// e^x for x <= 0, -infinity included: within (4 + 0.25 |x|) 2^-24 of it, relatively, for
/// x >= -87.3; below that e^-87.3, which is 1.2e-38. Rounding x itself to float costs up to |x|
/// 2^-24.
C2R_HOST_DEVICE inline float exp_of_negative(float x) {
  using namespace exp_constants;
  return power_bounded(std::max(x, -kMax), kLog2e);
}

/// 1 / (1 + e^-x): within (6 + 0.25 |x|) 2^-24 of it, relatively, for x >= -87.3.
C2R_HOST_DEVICE inline float sigmoid(float x) {
  using namespace exp_constants;
  // std::min takes a reference, and a device has no address of the constant.
  return 1.0f / (1.0f + power_bounded(std::min(std::max(x, -kMax), float{kMax}), -kLog2e));
}

}  // namespace c2r
