// What the optimizer minimizes, against enumeration and the volume model.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "c2r/core/at.h"
#include "c2r/core/rng.h"
#include "c2r/core/testing.h"
#include "c2r/placement/cost/reach.h"
#include "c2r/placement/optimize.h"
#include "c2r/placement/search/copy_bounds.h"
#include "c2r/placement/search/optimize_problems_internal.h"
#include "c2r/placement/search/optimize_testing_internal.h"

namespace c2r {
namespace {

Cluster cluster_of(std::int32_t num_nodes, std::int32_t ranks_per_node) {
  return {.num_nodes = num_nodes, .ranks_per_node = ranks_per_node, .device_flop_per_s = 1e12};
}

TokenSets sets_of_8_experts(std::uint64_t seed) {
  return clustered_token_sets(
      {.num_experts = 8, .top_k = 3, .num_tokens = 300, .num_topics = 3, .seed = seed});
}

PlacementObjective fastest_on(const Cluster& cluster) {
  PlacementObjective objective = objective_for(cluster);
  objective.goal = Goal::kTime;
  objective.layer_time = {.format = {.hidden = 1000}, .flop_per_choice = 20'000};
  return objective;
}

// The least value of all ways to split 8 experts evenly over the ranks.
double least_value(const TokenSets& sets, const Cluster& cluster,
                   const PlacementObjective& objective) {
  const std::int32_t ep_size = cluster.ep_size(), slots = 8 / ep_size;
  std::vector<std::int32_t> rank_of;
  for (std::int32_t e = 0; e < 8; ++e) rank_of.push_back(e / slots);
  double least = std::numeric_limits<double>::infinity();
  do {
    Placement placement{.num_experts = 8, .slots = {ep_size, slots}};
    std::vector<std::int32_t> next(std::size_t(ep_size), 0);
    for (std::int32_t e = 0; e < 8; ++e) {
      const std::int32_t rank = at(rank_of, e);
      placement.slots(rank, at(next, rank)++) = ExpertId{e};
    }
    const auto met = measure_placement(sets, cluster, objective, placement);
    if (met.meets_bounds) least = std::min(least, met.value);
  } while (std::next_permutation(rank_of.begin(), rank_of.end()));
  return least;
}

TEST(Goals, AreReachedOnSmallInstances) {
  const Cluster one_node = cluster_of(1, 2), nodes = cluster_of(2, 2);
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    SCOPED_TRACE(seed);
    const TokenSets sets = sets_of_8_experts(seed);
    const PlacementObjective goals[] = {{.imbalance_weight = 0.7},
                                        {.goal = Goal::kImbalance},
                                        {.max_copy_cost = 1.7, .goal = Goal::kImbalance},
                                        {.max_imbalance = 1.2}};
    for (std::size_t goal = 0; goal < std::size(goals); ++goal) {
      SCOPED_TRACE(goal);
      const auto result = optimize_placement(sets, one_node, goals[goal], {.effort = 0.01});
      const double least = least_value(sets, one_node, goals[goal]);
      EXPECT_EQ(result.meets_bounds, least < std::numeric_limits<double>::infinity());
      if (result.meets_bounds) {
        EXPECT_NEAR(result.value, least, 1e-9);
      }
      EXPECT_LE(result.value_bound, least + 1e-9);
    }
    if (seed >= 2) continue;
    for (const Cluster& cluster : {one_node, nodes}) {
      const auto result = optimize_placement(sets, cluster, fastest_on(cluster), {.effort = 0.02});
      const double least = least_value(sets, cluster, fastest_on(cluster));
      EXPECT_LE(result.value, 1.02 * least) << "time is minimized by way of a coarse front";
      EXPECT_LE(result.value_bound, least);
      EXPECT_GT(result.value_bound, 0.5 * least) << "a bound is to say something";
    }
  }
}

// Pairs of 8 experts on 4 ranks: the columns are all listed, so that the search knows which bounds
// no placement keeps.
TEST(Goals, ABoundIsProvedInfeasibleWhereNoPlacementKeepsIt) {
  const Cluster cluster = cluster_of(1, 4);
  int num_infeasible = 0;
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    const TokenSets sets = sets_of_8_experts(seed);
    for (const double bound : {1.0, 1.05, 1.1, 1.2, 1.5}) {
      SCOPED_TRACE(fmt::format("seed {}, bound {}", seed, bound));
      const PlacementObjective objective{.max_imbalance = bound};
      const auto result = optimize_placement(sets, cluster, objective, {.effort = 0.01});
      EXPECT_EQ(result.is_proved_infeasible, std::isinf(least_value(sets, cluster, objective)));
      EXPECT_EQ(result.is_proved_infeasible, !result.meets_bounds);
      num_infeasible += result.is_proved_infeasible ? 1 : 0;
    }
  }
  EXPECT_GT(num_infeasible, 0);
  EXPECT_LT(num_infeasible, 20);
}

TEST(Goals, PredictTheTimeThatTheVolumeModelDoes) {
  const TokenSets sets = sets_of_8_experts(7);
  for (const Cluster& cluster : {cluster_of(1, 4), cluster_of(2, 2)}) {
    const PlacementObjective objective = fastest_on(cluster);
    const auto result = optimize_placement(sets, cluster, objective, {.effort = 0.01});
    const TrafficModel traffic = default_traffic(cluster);
    ReachCounter counter(result.placement, traffic);
    for (std::int64_t set = 0; set < sets.num_sets(); ++set) {
      Matrix<ExpertId> tokens(at(sets.multiplicity, set), sets.top_k());
      for (std::int64_t t = 0; t < tokens.rows(); ++t) {
        std::ranges::copy(sets.experts.row(set), tokens.row(t).begin());
      }
      counter.add(tokens, {});
    }
    const auto time =
        predict_layer_time(volume_of(counter.finish(), traffic), cluster, *objective.layer_time);
    EXPECT_DOUBLE_EQ(result.value, time.predicted_total_s);
  }
}

// Here pairs stand in for tokens, and say nothing about the bound on copies.
TEST(Goals, BalanceWithinABoundOnCopiesWhereTokensAreMany) {
  const TokenSets sets = clustered_token_sets(
      {.num_experts = 64, .top_k = 6, .num_tokens = 15'000, .num_topics = 8, .seed = 1});
  const Cluster cluster = cluster_of(1, 16);
  for (const std::int32_t redundant : {0, 1}) {
    SCOPED_TRACE(redundant);
    const OptimizeOptions how{.effort = 0.2, .redundant_slots_per_rank = redundant};
    const auto known = optimize_placement(sets, cluster, {.max_imbalance = 1.5}, how);
    ASSERT_TRUE(known.meets_bounds);
    const auto balanced = optimize_placement(
        sets, cluster, {.max_copy_cost = known.copy_cost * 1.01, .goal = Goal::kImbalance}, how);
    EXPECT_TRUE(balanced.meets_bounds) << balanced.copy_cost << " of " << known.copy_cost;
    EXPECT_LE(balanced.imbalance, 1.05 * known.imbalance);
  }
}

// Copies are per token, so half as many of them mean the same with twice as many tokens.
TEST(Goals, CountTokensWithoutAChoice) {
  const TokenSets sets = sets_of_8_experts(5);
  TokenSets with_empty = sets;
  with_empty.num_tokens *= 2;
  const std::pair<PlacementObjective, PlacementObjective> goals[] = {
      {{.imbalance_weight = 0.7}, {.imbalance_weight = 0.35}},
      {{.max_copy_cost = 1.8, .goal = Goal::kImbalance},
       {.max_copy_cost = 0.9, .goal = Goal::kImbalance}}};
  for (const auto& [goal, halved] : goals) {
    const auto all = optimize_placement(sets, cluster_of(1, 2), goal, {.effort = 0.01});
    const auto some = optimize_placement(with_empty, cluster_of(1, 2), halved, {.effort = 0.01});
    EXPECT_TRUE(some.meets_bounds);
    EXPECT_DOUBLE_EQ(some.copy_cost, all.copy_cost / 2);
    EXPECT_DOUBLE_EQ(some.imbalance, all.imbalance);
  }
}

// Two tokens on four ranks: the mean load is a half, and one of them twice that.
TEST(Goals, MeasureFewerChoicesThanRanks) {
  TokenSetBuilder builder(4, 1);
  for (int e = 0; e < 2; ++e) builder.add(Matrix<ExpertId>(1, 1, ExpertId{e}));
  const auto result = optimize_placement(builder.finish(), cluster_of(1, 4),
                                         {.goal = Goal::kImbalance}, {.effort = 0.01});
  EXPECT_EQ(result.imbalance, 2);
  EXPECT_EQ(result.imbalance_bound, 2);
}

TEST(Goals, RefuseATimeWithoutWhatItNeeds) {
  const TokenSets sets = sets_of_8_experts(1);
  EXPECT_EQ(testing::error_of(
                [&] { optimize_placement(sets, cluster_of(1, 2), {.goal = Goal::kTime}, {}); }),
            "minimizing the predicted time needs layer_time and takes no max_copy_cost");
}

// Expert 0 is chosen by half of all tokens, so a rank of two slots bears it only with replicas.
TEST(Goals, KeepTheBoundOnImbalanceWithTooLittleEffortToAnneal) {
  std::mt19937_64 rng(3);
  TokenSetBuilder builder(32, 2);
  for (int t = 0; t < 4000; ++t) {
    Matrix<ExpertId> token(1, 2);
    const auto other = std::int32_t(1 + uniform_below(31, rng));
    token(0, 0) = t % 2 == 0 ? ExpertId{0} : ExpertId{1 + other % 31};
    token(0, 1) = ExpertId{other};
    builder.add(token);
  }
  const TokenSets sets = builder.finish();
  const auto result = optimize_placement(sets, cluster_of(1, 16), {.max_imbalance = 1.1},
                                         {.effort = 1e-4, .redundant_slots_per_rank = 1});
  EXPECT_TRUE(result.meets_bounds) << result.imbalance;
}

// 5 experts on 2 or 3 ranks of 3 slots: every placement with replicas is enumerated.
TEST(CopyBounds, AreBelowEveryPlacementWithReplicas) {
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    SCOPED_TRACE(seed);
    const TokenSets sets = random_sets(5, std::int32_t(2 + seed % 2), 100, seed);
    const auto ep_size = std::int32_t(2 + seed % 2);
    std::vector<std::array<int, 3>> columns;
    for (unsigned mask = 0; mask < 32; ++mask) {
      if (std::popcount(mask) != 3) continue;
      std::size_t slot = 0;
      columns.emplace_back();
      for (int e = 0; e < 5; ++e) {
        if ((mask >> e & 1) != 0) columns.back()[slot++] = e;
      }
    }
    std::int64_t least = std::numeric_limits<std::int64_t>::max();
    const int num_placements = ep_size == 2 ? 100 : 1000;
    for (int id = 0; id < num_placements; ++id) {
      Placement placement{.num_experts = 5, .slots = {ep_size, 3}};
      for (int rank = 0, rest = id; rank < ep_size; ++rank, rest /= 10) {
        std::ranges::transform(at(columns, rest % 10), placement.slots.row(rank).begin(),
                               [](int e) { return ExpertId{e}; });
      }
      const auto hosts = ranks_of_experts(placement);
      if (std::ranges::any_of(hosts, [](const auto& ranks) { return ranks.empty(); })) continue;
      least = std::min(least, fewest_copies(sets, placement));
    }
    const SetIndex index(sets);
    const double bound = CopyBounds(index).copies(ep_size, 3);
    EXPECT_LE(bound, static_cast<double>(least));
    EXPECT_GT(bound, 0.6 * static_cast<double>(least)) << "a bound is to say something";
  }
}

// Loads 9, 5, 4, 2 on 2 ranks of 2 slots: 9 + 2 is the best; mean 10.
TEST(ImbalanceBound, FindsTheLeastOfAWorkedExample) {
  TokenSetBuilder builder(4, 1);
  const std::int64_t loads[] = {9, 5, 4, 2};
  for (int e = 0; e < 4; ++e) builder.add(Matrix<ExpertId>(loads[e], 1, ExpertId{e}));
  const SetIndex index(builder.finish());
  EXPECT_DOUBLE_EQ(imbalance_bound(index, 2, 2), 1.1);
  EXPECT_DOUBLE_EQ(imbalance_bound(index, 4, 1), 9 / 5.0);
  EXPECT_DOUBLE_EQ(imbalance_bound(index, 2, 3), 1) << "replicas may split any load";
}

}  // namespace
}  // namespace c2r
