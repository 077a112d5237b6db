// Checks bf16 rounding against its definition, for all values and at its edges.
#include "c2r/core/bf16.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace c2r {
namespace {

std::uint16_t bits(Bf16 b) {
  return static_cast<std::uint16_t>(b);
}

TEST(Bf16, EveryNumberSurvivesTheWayThroughFloat) {
  for (std::uint32_t b = 0; b < 0x10000; ++b) {
    const Bf16 number{static_cast<std::uint16_t>(b)};
    const float f = to_float(number);
    if (std::isnan(f)) {
      EXPECT_TRUE(std::isnan(to_float(to_bf16(f))));
    } else {
      ASSERT_EQ(bits(to_bf16(f)), b);
    }
  }
}

TEST(Bf16, RoundsToTheNearerNeighbourAndTiesToEven) {
  EXPECT_EQ(bits(to_bf16(1.0f)), 0x3f80);
  EXPECT_EQ(bits(to_bf16(1.0f + 0x1p-8f)), 0x3f80);             // a tie, down to even
  EXPECT_EQ(bits(to_bf16(1.0f + 0x3p-8f)), 0x3f82);             // a tie, up to even
  EXPECT_EQ(bits(to_bf16(1.0f + 0x1p-8f + 0x1p-20f)), 0x3f81);  // just above the tie
  EXPECT_EQ(bits(to_bf16(-1.0f - 0x1p-7f)), 0xbf81);
  EXPECT_TRUE(std::isinf(to_float(to_bf16(std::numeric_limits<float>::max()))));
  EXPECT_TRUE(std::isnan(to_float(to_bf16(std::bit_cast<float>(0x7f800001u)))));
}

TEST(Bf16, IsNeverFurtherThanHalfAPlace) {
  std::mt19937 rng(1);
  for (int n = 0; n < 100'000; ++n) {
    const float f = std::bit_cast<float>(static_cast<std::uint32_t>(rng()));
    if (!std::isfinite(f) || std::abs(f) > 0x1p127f) continue;
    const float rounded = to_float(to_bf16(f));
    // 8 significant bits: half a place is 2^-8 of the number's power of two, subnormals less.
    const double half_place = std::ldexp(1.0, std::max(std::ilogb(f), -126) - 8);
    ASSERT_LE(std::abs(double{rounded} - double{f}), half_place) << f;
  }
}

}  // namespace
}  // namespace c2r
