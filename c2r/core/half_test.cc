// Checks f16 conversion against its definition, for all values and at its edges.
#include "c2r/core/half.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>

namespace c2r {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::uint16_t bits(Half h) {
  return static_cast<std::uint16_t>(h);
}

bool is_nan(Half h) {
  return (bits(h) & 0x7fffu) > 0x7c00u;
}

// The definition: (-1)^sign * 2^(exponent - 15) * 1.mantissa, or 2^-14 * 0.mantissa.
double by_definition(std::uint16_t half) {
  const int exponent = (half >> 10) & 31, mantissa = half & 1023;
  const double magnitude = exponent == 31  ? (mantissa == 0 ? HUGE_VAL : NAN)
                           : exponent == 0 ? std::ldexp(mantissa, -24)
                                           : std::ldexp(1024 + mantissa, exponent - 25);
  return half & 0x8000 ? -magnitude : magnitude;
}

// The nearest half by bisection over the magnitudes, which ascend with the bits; ties to even.
std::uint16_t nearest(double value) {
  const double magnitude = std::abs(value);
  std::uint16_t low = 0, high = 0x7c00;
  while (high - low > 1) {
    const auto middle = static_cast<std::uint16_t>((low + high) / 2);
    (by_definition(middle) <= magnitude ? low : high) = middle;
  }
  // For the purpose of rounding, infinity lies where the next number would: at 65536.
  const double above = high == 0x7c00 ? 65536.0 : by_definition(high);
  const double to_low = magnitude - by_definition(low), to_high = above - magnitude;
  const std::uint16_t even = low % 2 == 0 ? low : high;
  const std::uint16_t rounded = to_low < to_high ? low : to_high < to_low ? high : even;
  return static_cast<std::uint16_t>(rounded | (std::signbit(value) ? 0x8000u : 0u));
}

TEST(Half, HasTheKnownBits) {
  EXPECT_EQ(bits(to_half(1.0f)), 0x3c00);
  EXPECT_EQ(bits(to_half(-2.0f)), 0xc000);
  EXPECT_EQ(bits(to_half(65504.0f)), 0x7bff);  // the largest
  EXPECT_EQ(bits(to_half(0x1p-24f)), 0x0001);  // the smallest above 0
  EXPECT_EQ(bits(to_half(-0.0f)), 0x8000);
  EXPECT_EQ(bits(to_half(0.1f)), 0x2e66);
}

TEST(Half, EveryHalfIsTheFloatOfItsDefinition) {
  for (unsigned i = 0; i < 65536; ++i) {
    const Half half{static_cast<std::uint16_t>(i)};
    if (is_nan(half)) {
      EXPECT_TRUE(std::isnan(to_float(half))) << i;
    } else {
      EXPECT_EQ(to_float(half), by_definition(bits(half))) << i;
      EXPECT_EQ(std::signbit(to_float(half)), i >= 0x8000) << i;
    }
  }
}

TEST(Half, EveryHalfSurvivesTheRoundTrip) {
  for (unsigned i = 0; i < 65536; ++i) {
    const Half half{static_cast<std::uint16_t>(i)};
    if (is_nan(half)) {
      EXPECT_TRUE(is_nan(to_half(to_float(half)))) << i;
    } else {
      EXPECT_EQ(bits(to_half(to_float(half))), i);
    }
  }
}

TEST(Half, RoundsToTheNearestAndTiesToEven) {
  // Between each half and the next: the middle, and the floats on either side of it.
  for (std::uint16_t low = 0; low < 0x7c00; ++low) {
    const double next =
        low == 0x7bff ? 65536.0 : by_definition(static_cast<std::uint16_t>(low + 1));
    const auto middle = static_cast<float>((by_definition(low) + next) / 2);  // exact: 12 bits
    const std::uint16_t even = low % 2 == 0 ? low : static_cast<std::uint16_t>(low + 1);
    EXPECT_EQ(bits(to_half(middle)), even) << middle;
    EXPECT_EQ(bits(to_half(std::nextafter(middle, 0.0f))), low) << middle;
    EXPECT_EQ(bits(to_half(std::nextafter(middle, kInfinity))), low + 1) << middle;
    EXPECT_EQ(bits(to_half(-middle)), even | 0x8000) << middle;
  }
}

TEST(Half, AgreesWithDoubleArithmeticOnRandomFloats) {
  std::mt19937 rng(1);
  for (int i = 0; i < 200'000; ++i) {
    const auto f = std::bit_cast<float>(static_cast<std::uint32_t>(rng()));
    if (std::isnan(f)) continue;
    ASSERT_EQ(bits(to_half(f)), nearest(f)) << f;
  }
}

TEST(Half, KeepsInfinityAndNan) {
  EXPECT_EQ(bits(to_half(kInfinity)), 0x7c00);
  EXPECT_EQ(bits(to_half(-kInfinity)), 0xfc00);
  EXPECT_EQ(bits(to_half(std::numeric_limits<float>::max())), 0x7c00);
  EXPECT_TRUE(is_nan(to_half(std::numeric_limits<float>::quiet_NaN())));
  EXPECT_TRUE(is_nan(to_half(std::bit_cast<float>(0x7f800001u))));  // all payload in the low bits
}

}  // namespace
}  // namespace c2r
