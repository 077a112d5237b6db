// Tests of the exponential function: its error, its special values, and equal bits on every
// target.
#include "c2r/core/exp.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace c2r {
namespace {

// Every kStep-th float, so that a test takes a second; 1 was run once and gives the same verdict.
#ifdef C2R_ENABLE_ASSERTS
constexpr std::uint32_t kStep = 4999;
#else
constexpr std::uint32_t kStep = 97;
#endif

// The largest |f(x) / truth(x) - 1| over x in [-87.3, max], in units of 2^-24 (constant +
// 0.25 |x|), the bound on rounding: log2(e) is rounded to float, which costs 0.225 |x|.
template <class F, class Truth>
double largest_error(F f, Truth truth, double constant, float max) {
  double largest = 0;
  const auto end = std::bit_cast<std::uint32_t>(87.3f);
  for (std::uint32_t bits = 0; bits <= end; bits += kStep) {
    for (const float x : {-std::bit_cast<float>(bits), std::bit_cast<float>(bits)}) {
      if (x > max) continue;
      const double error = std::abs(double{f(x)} / truth(double{x}) - 1) * 0x1p24;
      largest = std::max(largest, error / (constant + 0.25 * std::abs(double{x})));
    }
  }
  return largest;
}

// 2^f in [0.707, 1.415]: the polynomial 1.9, its last rounding 1, the one before it, of a factor of
// f in [0.5, 1), 0.4, that of f 0.2, and those further in together 0.2: below 4.
TEST(Exp, IsWithinItsBound) {
  EXPECT_LT(largest_error(
                exp_of_negative, [](double x) { return std::exp(x); }, 4, 0),
            1);
}

// exp's error counts at most once, then the addition 1 and the quotient 1.
TEST(Sigmoid, IsWithinItsBound) {
  EXPECT_LT(largest_error(
                sigmoid, [](double x) { return 1 / (1 + std::exp(-x)); }, 6, 87.3f),
            1);
}

TEST(Exp, HasItsSpecialValues) {
  EXPECT_EQ(exp_of_negative(0.0f), 1.0f);
  EXPECT_EQ(exp_of_negative(-0.0f), 1.0f);
  EXPECT_GE(exp_of_negative(-87.3f), std::numeric_limits<float>::min());
  EXPECT_EQ(exp_of_negative(-88.0f), exp_of_negative(-87.3f));
  EXPECT_EQ(exp_of_negative(-std::numeric_limits<float>::infinity()), exp_of_negative(-87.3f));
}

TEST(Sigmoid, HasItsSpecialValues) {
  EXPECT_EQ(sigmoid(0.0f), 0.5f);
  EXPECT_EQ(sigmoid(1e30f), 1.0f);
  EXPECT_EQ(sigmoid(-1e30f), sigmoid(-88.0f));
  EXPECT_GT(sigmoid(-1e30f), 0.0f);
}

}  // namespace
}  // namespace c2r
