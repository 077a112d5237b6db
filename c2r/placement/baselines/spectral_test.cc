// Tests of spectral clustering on graphs whose clusters are known.
#include "c2r/placement/baselines/spectral.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "c2r/core/at.h"
#include "c2r/core/rng.h"
#include "c2r/core/testing.h"

namespace c2r {
namespace {

// Items of the same colour are tied by `strong`, all others by `weak`.
Matrix<std::int64_t> coloured(const std::vector<int>& colour, std::int64_t strong,
                              std::int64_t weak) {
  const std::int64_t n = std::ssize(colour);
  Matrix<std::int64_t> affinity(n, n);
  for (std::int64_t a = 0; a < n; ++a) {
    for (std::int64_t b = 0; b < n; ++b) {
      affinity(a, b) = at(colour, a) == at(colour, b) ? strong : weak;
    }
  }
  return affinity;
}

TEST(Spectral, FindsPlantedGroups) {
  const std::vector<int> colour = {0, 1, 2, 1, 0, 2, 2, 0, 1, 1, 2, 0};
  EXPECT_EQ(group_by_affinity(coloured(colour, 50, 1), {.num_groups = 3, .min = 4, .max = 4}),
            (std::vector<std::int32_t>{0, 1, 2, 1, 0, 2, 2, 0, 1, 1, 2, 0}));
}

TEST(Spectral, FindsUnequalGroupsWhereSizesAllowThem) {
  const std::vector<int> colour = {0, 0, 0, 0, 0, 1, 1, 1};
  EXPECT_EQ(group_by_affinity(coloured(colour, 50, 1), {.num_groups = 2, .min = 3, .max = 5}),
            (std::vector<std::int32_t>{0, 0, 0, 0, 0, 1, 1, 1}));
}

TEST(Spectral, KeepsSizesOnRandomGraphs) {
  for (unsigned seed = 0; seed < 80; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    std::mt19937_64 rng(seed);
    const auto n = std::int64_t(seed % 30);
    Matrix<std::int64_t> affinity(n, n);
    for (std::int64_t a = 0; a < n; ++a) {
      for (std::int64_t b = 0; b <= a; ++b) {  // sparse, so that items without ties occur
        affinity(a, b) = affinity(b, a) =
            uniform_below(3, rng) == 0 ? std::int64_t(uniform_below(9, rng)) : 0;
      }
    }
    const auto groups = std::int32_t(1 + seed % 7);
    const auto mean = std::int32_t(n / groups);
    const GroupSizes sizes = {groups, mean - std::min(mean, std::int32_t(seed % 3)),
                              mean + 1 + std::int32_t(seed % 2)};
    const auto group_of = group_by_affinity(affinity, sizes);
    ASSERT_EQ(std::ssize(group_of), n);
    for (std::int32_t group = 0; group < groups; ++group) {
      EXPECT_GE(std::ranges::count(group_of, group), sizes.min);
      EXPECT_LE(std::ranges::count(group_of, group), sizes.max);
    }
    EXPECT_EQ(group_by_affinity(affinity, sizes), group_of);
  }
}

TEST(Spectral, SaysThatItemsDoNotFit) {
  EXPECT_EQ(testing::error_of([] {
              group_by_affinity(Matrix<std::int64_t>(9, 9), {.num_groups = 2, .min = 4, .max = 4});
            }),
            "9 items do not fit into 2 groups of 4 to 4");
}

}  // namespace
}  // namespace c2r
