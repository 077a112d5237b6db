// Tests the search in stages: samples of the token sets, and that more effort is never worse.
#include "c2r/placement/search/partition_stages.h"

#include <gtest/gtest.h>

#include <vector>

#include "c2r/placement/optimize.h"
#include "c2r/placement/search/optimize_testing_internal.h"

namespace c2r {
namespace {

TokenSets many_sets(std::uint64_t seed) {
  return clustered_token_sets(
      {.num_experts = 32, .top_k = 4, .num_tokens = 20'000, .num_topics = 8, .seed = seed});
}

PartitionProblem problem_on(const SetIndex& index, std::int32_t ep_size, double max_load) {
  PartitionProblem problem{.index = &index,
                           .cluster = flat(ep_size),
                           .num_items = index.num_experts(),
                           .domain_of_rank = std::vector<std::int32_t>(std::size_t(ep_size))};
  problem.energy.max_load = max_load;
  return problem;
}

std::vector<std::int32_t> round_robin(std::int32_t num_experts, std::int32_t ep_size) {
  std::vector<std::int32_t> rank_of;
  for (std::int32_t e = 0; e < num_experts; ++e) rank_of.push_back(e % ep_size);
  return rank_of;
}

TEST(SetSample, GivesEachDrawnTokenTheWeightOfTheDistance) {
  // Tokens 0 to 9 in the order of the sets: the first set has 6, the second 3 and the third 1.
  TokenSets sets{.num_experts = 4, .num_tokens = 10, .experts = {3, 1}, .multiplicity = {6, 3, 1}};
  for (std::int64_t set = 0; set < 3; ++set) sets.experts(set, 0) = ExpertId(set);
  const SetIndex index(sets);
  // Distances of 4 are the least with which min(1, 6/d) + min(1, 3/d) + min(1, 1/d) <= 2.
  const SetIndex drawn = index.sample(2, /*seed=*/1);
  std::int64_t sum = 0;
  for (std::int64_t set = 0; set < drawn.num_sets(); ++set) {
    EXPECT_EQ(drawn.weight(set) % 4, 0);
    sum += drawn.weight(set);
  }
  EXPECT_EQ(drawn.experts(0)[0], 0) << "a set of more tokens than the distance is always drawn";
  EXPECT_NEAR(static_cast<double>(sum), 10, 4);
  EXPECT_EQ(drawn.load(0), 6) << "loads are those of all sets";
  EXPECT_EQ(drawn.num_choices(), 10);
}

TEST(SetSample, IsEverythingIfTheSetsAreFewEnough) {
  const SetIndex index(many_sets(1));
  EXPECT_EQ(index.sample(index.num_sets(), 3).num_sets(), index.num_sets());
}

TEST(SetSample, EstimatesTheCopiesOfPlacements) {
  for (std::uint64_t seed = 0; seed < 5; ++seed) {
    const SetIndex index(many_sets(seed));
    const SetIndex drawn = index.sample(2'000, seed);
    EXPECT_LE(drawn.num_sets(), 2'100);
    EXPECT_GE(drawn.num_sets(), 1'500);
    const auto rank_of = round_robin(32, 4);
    const auto all = partition_cost(problem_on(index, 4, 1e9), rank_of);
    const auto estimate = partition_cost(problem_on(drawn, 4, 1e9), rank_of);
    EXPECT_NEAR(static_cast<double>(estimate.rank_copies) / static_cast<double>(all.rank_copies), 1,
                0.03)
        << "seed " << seed;
    EXPECT_EQ(estimate.loads, all.loads) << "seed " << seed;
  }
}

TEST(PartitionStages, ReachOnSamplesWhatAllSetsReach) {
  for (std::uint64_t seed = 0; seed < 3; ++seed) {
    const SetIndex index(many_sets(seed));
    const double mean_load = static_cast<double>(index.num_choices()) / 4;
    const PartitionProblem problem = problem_on(index, 4, 1.1 * mean_load);
    const SearchLimits limits;
    PartitionStages stages(index, limits);
    const auto start = round_robin(32, 4);
    const auto on_all = partition_quality(problem, stages.anneal(problem, 50'000'000, seed, start));
    const auto staged = partition_quality(problem, stages.anneal(problem, 3'000'000, seed, start));
    EXPECT_EQ(staged.violation, 0) << "seed " << seed;
    EXPECT_LE(staged.value, on_all.value * 1.01) << "seed " << seed;
  }
}

TEST(SearchRounds, AreNeverWorseWithMoreEffort) {
  const TokenSets sets = clustered_token_sets(
      {.num_experts = 24, .top_k = 4, .num_tokens = 3'000, .num_topics = 6, .seed = 5});
  for (const std::int32_t redundant : {0, 1}) {
    Quality last{.violation = 1e9};
    for (const double effort : {1.0, 1.5, 2.0, 3.0, 4.0}) {
      const auto met = optimize_placement(
          sets, flat(4), {.max_imbalance = 1.1},
          {.effort = effort, .redundant_slots_per_rank = redundant, .max_columns = 0});
      EXPECT_LE(met.quality(), last) << "effort " << effort << ", " << redundant << " redundant";
      last = met.quality();
    }
  }
}

}  // namespace
}  // namespace c2r
