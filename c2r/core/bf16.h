// bfloat16 as stored in checkpoints, to and from float: the upper half of a float's bits.
#pragma once

#include <bit>
#include <cstdint>

namespace c2r {

/// The bits of a bfloat16 number. Arithmetic is done in float.
enum class Bf16 : std::uint16_t {};

/// Exact: every bf16 is a float.
constexpr float to_float(Bf16 b) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(b) << 16);
}

/// Rounds to the nearest bf16, ties to even; too large becomes infinity, NaN stays NaN.
constexpr Bf16 to_bf16(float f) {
  const auto bits = std::bit_cast<std::uint32_t>(f);
  if ((bits & 0x7fffffffu) > 0x7f800000u) {  // rounding could turn a NaN into infinity
    return Bf16{static_cast<std::uint16_t>((bits >> 16) | 0x40u)};
  }
  return Bf16{static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

}  // namespace c2r
