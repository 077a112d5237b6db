// Tests that random numbers have fixed values on every platform, and are even.
#include "c2r/core/rng.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

namespace c2r {
namespace {

// The first numbers of SplitMix64 from seed 0 (Steele, Lea and Flood 2014), whose state advances
// by the constant that mix_bits() adds.
TEST(Rng, MixesBitsAsSplitMix64) {
  EXPECT_EQ(mix_bits(0), 0xe220a8397b1dcdafu);
  EXPECT_EQ(mix_bits(0x9e3779b97f4a7c15u), 0x6e789e6aa1b965f4u);
}

TEST(Rng, DrawsTheSameOnEveryPlatform) {
  // The seed 5489 is the default one; the C++ standard fixes its 10000th number, and so the first.
  std::mt19937_64 rng(5489);
  EXPECT_EQ(uniform_below(1000, rng), 14514284786278117030u % 1000);
  std::vector items = {0, 1, 2, 3, 4, 5, 6, 7};
  shuffle(std::span(items), rng);
  // From a program in another language, with a generator of its own.
  EXPECT_EQ(items, (std::vector{3, 0, 5, 2, 6, 7, 1, 4}));
}

TEST(Rng, DrawsEvenly) {
  std::mt19937_64 rng(1);
  std::array<int, 6> count{};
  for (int n = 0; n < 6000; ++n) ++count[uniform_below(6, rng)];
  for (const int c : count) EXPECT_NEAR(c, 1000, 5 * 28.9);  // 5 standard deviations
}

// Each of the 6 orders of 3 items is drawn about equally often.
TEST(Rng, ShufflesEvenly) {
  std::mt19937_64 rng(2);
  std::array<int, 6> count{};
  for (int n = 0; n < 6000; ++n) {
    std::vector items = {0, 1, 2};
    shuffle(std::span(items), rng);
    ++count[static_cast<std::size_t>(items[0]) * 2 + (items[1] > items[2] ? 1 : 0)];
  }
  for (const int c : count) EXPECT_NEAR(c, 1000, 5 * 28.9);
}

TEST(Rng, ShufflesNothing) {
  std::mt19937_64 rng(3);
  shuffle(std::span<int>(), rng);
}

}  // namespace
}  // namespace c2r
