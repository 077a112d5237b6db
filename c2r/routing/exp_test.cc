#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "c2r/routing/exp_internal.h"

namespace c2r {
namespace {

// Every kStep-th float, so that a test takes a second; 1 was run once and gives the same verdict.
#ifdef C2R_ENABLE_ASSERTS
constexpr std::uint32_t kStep = 4999;
#else
constexpr std::uint32_t kStep = 97;
#endif

// The largest |f(x) / truth(x) - 1|, in units of 2^-24, over floats with |x| <= 87.
template <class F, class Truth>
double largest_error(F f, Truth truth, bool with_positive) {
  double largest = 0;
  const auto end = std::bit_cast<std::uint32_t>(87.0f);
  for (std::uint32_t bits = 0; bits <= end; bits += kStep) {
    for (const float sign : {-1.0f, 1.0f}) {
      if (sign > 0 && !with_positive) continue;
      const float x = sign * std::bit_cast<float>(bits);
      const double error = std::abs(double{f(x)} / truth(double{x}) - 1);
      largest = std::max(largest, error * 0x1p24);
    }
  }
  return largest;
}

// In units of 2^-24, relative to e^r in [0.707, 1.415]: the last addition 1 (0.71 below 1), the
// product before it 0.42, the factor's own roundings 0.3466 * 1.5 / 0.707 = 0.74, r's rounding
// 0.25 and its error from n * kLn2Low 0.1, the polynomial 0.06: below 3.
TEST(Exp, IsWithinItsBound) {
  EXPECT_LT(largest_error(
                exp_bounded, [](double x) { return std::exp(x); }, true),
            3);
}

// exp's error counts at most once, then the addition 1 and the quotient 1: below 6.
TEST(Sigmoid, IsWithinItsBound) {
  EXPECT_LT(largest_error(
                sigmoid, [](double x) { return 1 / (1 + std::exp(-x)); }, true),
            6);
}

TEST(Exp, HasItsSpecialValues) {
  EXPECT_EQ(exp_of_negative(0.0f), 1.0f);
  EXPECT_EQ(exp_of_negative(-0.0f), 1.0f);
  EXPECT_GT(exp_of_negative(-87.0f), std::numeric_limits<float>::min());
  EXPECT_EQ(exp_of_negative(std::nextafter(-87.0f, -88.0f)), 0.0f);
  EXPECT_EQ(exp_of_negative(-std::numeric_limits<float>::infinity()), 0.0f);
}

TEST(Sigmoid, HasItsSpecialValues) {
  EXPECT_EQ(sigmoid(0.0f), 0.5f);
  EXPECT_EQ(sigmoid(1e30f), 1.0f);
  EXPECT_EQ(sigmoid(-1e30f), sigmoid(-87.0f));
  EXPECT_GT(sigmoid(-1e30f), 0.0f);
}

}  // namespace
}  // namespace c2r
