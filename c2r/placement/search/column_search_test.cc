// Tests of the proof of optimality against enumeration.
#include "c2r/placement/search/column_search.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <vector>

#include "c2r/placement/optimize.h"
#include "c2r/placement/search/optimize_testing_internal.h"

namespace c2r {
namespace {

// Every partition is enumerated by the definition.
TEST(ColumnSearch, ProvesTheOptimumAndItsBound) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    const std::int32_t ep_size = seed % 2 == 0 ? 4 : 2;
    const TokenSets sets = random_sets(8, 3, 300, seed);
    const SetIndex index(sets);
    std::vector<std::int32_t> start;
    for (std::int32_t e = 0; e < 8; ++e) start.push_back(e / (8 / ep_size));
    const double least =
        least_copies_per_token(sets, ep_size) * static_cast<double>(sets.num_tokens);
    const auto proved = search_columns({.index = &index, .ep_size = ep_size}, {}, start);
    EXPECT_TRUE(proved.is_proved);
    EXPECT_NEAR(proved.bound, least, 1e-6);
    EXPECT_EQ(copies_of(sets, proved.rank_of), std::llround(least));
    const auto cut_off =
        search_columns({.index = &index, .ep_size = ep_size, .max_steps = 0}, {}, start);
    EXPECT_LE(cut_off.bound, least + 1e-6);
    EXPECT_GT(cut_off.bound, 0.9 * least);
    const auto impossible =
        search_columns({.index = &index, .ep_size = ep_size, .max_load = 1}, {}, start);
    EXPECT_TRUE(std::isinf(impossible.bound));
  }
}

TEST(ColumnSearch, RespectsTheLargestLoad) {
  const TokenSets sets = random_sets(12, 3, 2000, 2);
  const auto result = optimize_placement(sets, flat(3), {.max_imbalance = 1.02}, {.effort = 0.01});
  ASSERT_TRUE(result.meets_bounds);
  EXPECT_TRUE(result.is_proved_optimal);
  EXPECT_NEAR(result.value, result.value_bound, 1e-12);
  EXPECT_LE(result.imbalance, 1.02);
}

// 8 experts in ranks of 2 have 28 columns: a limit of 27 leaves the search out, and with it the
// proof. What annealing found stays.
TEST(ColumnSearch, IsLeftOutAboveTheLimitOnColumns) {
  const TokenSets sets = random_sets(8, 3, 300, 1);
  EXPECT_EQ(num_columns(8, 2), 28);
  const auto listed = optimize_placement(sets, flat(4), {}, {.max_columns = 28});
  const auto declined = optimize_placement(sets, flat(4), {}, {.max_columns = 27});
  EXPECT_TRUE(listed.is_proved_optimal);
  EXPECT_FALSE(declined.is_proved_optimal);
  EXPECT_FALSE(declined.is_cut_short);
  EXPECT_LT(declined.value_bound, listed.value_bound);
  EXPECT_NEAR(declined.value, listed.value, 1e-12);
}

TEST(ColumnSearch, BoundsNothingIfItMayNotList) {
  const TokenSets sets = random_sets(8, 3, 300, 1);
  const SetIndex index(sets);
  const std::atomic<bool> stop = true;
  const std::vector<std::int32_t> start = {0, 1, 2, 3, 0, 1, 2, 3};
  const auto result = search_columns({.index = &index, .ep_size = 4}, {.stop = &stop}, start);
  EXPECT_FALSE(result.is_proved);
  EXPECT_EQ(result.bound, 0);
  EXPECT_EQ(result.rank_of, start);
}

}  // namespace
}  // namespace c2r
