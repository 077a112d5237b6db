// IEEE half precision (f16) as stored in files, to and from float. bf16 is another format.
#pragma once

#include <bit>
#include <cstdint>

namespace c2r {

/// The bits of an IEEE binary16 number. Arithmetic is done in float.
enum class Half : std::uint16_t {};

/// Exact: every half is a float.
constexpr float to_float(Half h) {
  const auto bits = static_cast<std::uint32_t>(h);
  const std::uint32_t sign = (bits & 0x8000u) << 16;
  const std::uint32_t exponent = (bits >> 10) & 0x1fu, mantissa = bits & 0x3ffu;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent != 0)
    return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float subnormal = static_cast<float>(mantissa) * 0x1p-24f;
  return sign != 0 ? -subnormal : subnormal;
}

/// Rounds to the nearest half, ties to even; too large becomes infinity, NaN stays NaN.
constexpr Half to_half(float f) {
  const auto bits = std::bit_cast<std::uint32_t>(f);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  const auto half = [&](std::uint32_t low) { return Half{static_cast<std::uint16_t>(sign | low)}; };
  if (magnitude > 0x7f800000u) return half(0x7e00u);
  if (magnitude >= 0x477ff000u) return half(0x7c00u);  // 65520 and above round to infinity
  if (magnitude < 0x38800000u) {                       // below 2^-14: a multiple of 2^-24
    // Adding 0.5 leaves a float whose last place is 2^-24, so the addition itself rounds.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return half(std::bit_cast<std::uint32_t>(shifted) - std::bit_cast<std::uint32_t>(0.5f));
  }
  const std::uint32_t odd = (magnitude >> 13) & 1u;
  return half((magnitude - 0x38000000u + 0xfffu + odd) >> 13);
}

}  // namespace c2r
