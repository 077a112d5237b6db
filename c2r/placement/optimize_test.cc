// Tests of the optimizer: optima where all placements can be enumerated, invariants elsewhere.
#include "c2r/placement/optimize.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "c2r/core/at.h"
#include "c2r/core/error.h"
#include "c2r/core/rng.h"
#include "c2r/core/testing.h"
#include "c2r/io/file.h"
#include "c2r/placement/search/optimize_testing_internal.h"
#include "c2r/placement/search/partition_level.h"
#include "c2r/placement/search/search_energy.h"
#include "c2r/placement/search/set_index.h"
#include "c2r/placement/testing_internal.h"

namespace c2r {
namespace {

std::vector<std::int32_t> random_groups(std::int32_t num_items, std::int32_t num_groups,
                                        std::mt19937_64& rng) {
  std::vector<std::int32_t> groups(static_cast<std::size_t>(num_items));
  for (std::int32_t item = 0; item < num_items; ++item) {
    at(groups, item) = item % num_groups;
  }
  shuffle(std::span(groups), rng);
  return groups;
}

// 3 tokens chose {0, 2}, 2 chose {1, 3}, 1 chose {0, 1}; a masked choice and an empty token.
TEST(TokenSets, AreCountedOnce) {
  TokenSetBuilder builder(4, 2);
  const int choices[][2] = {{2, 0}, {0, 2}, {3, 1}, {0, 1}, {1, 3}, {0, 2}, {-1, 3}, {-1, -1}};
  for (const auto& [a, b] : choices) {
    Matrix<ExpertId> token(1, 2);
    token(0, 0) = ExpertId{a}, token(0, 1) = ExpertId{b};
    builder.add(token);
  }
  const TokenSets sets = builder.finish();
  EXPECT_EQ(sets.num_tokens, 8);
  ASSERT_EQ(sets.num_sets(), 4);
  EXPECT_EQ(sets.multiplicity, (std::vector<std::int64_t>{1, 3, 2, 1}));
  EXPECT_EQ(sets.experts(1, 0), ExpertId{0});
  EXPECT_EQ(sets.experts(1, 1), ExpertId{2});
  EXPECT_EQ(sets.experts(3, 0), ExpertId{3});
  EXPECT_EQ(sets.experts(3, 1), kNoExpert);
  const SetIndex index(sets);
  for (const std::int32_t e : {0, 1, 2, 3}) EXPECT_EQ(index.load(e), e == 0 ? 4 : 3);
}

TEST(TokenSets, RefuseWhatIsNotAChoice) {
  TokenSetBuilder builder(4, 2);
  Matrix<ExpertId> token(1, 2, ExpertId{4});
  EXPECT_THROW(builder.add(token), Error);
  token = Matrix<ExpertId>(1, 2, ExpertId{3});
  EXPECT_THROW(builder.add(token), Error) << "twice the same";
  EXPECT_THROW(TokenSetBuilder(4, 5), Error);
}

// Experts 0 and 2 belong together, and 1 and 3: contiguous placement cuts every pair but one.
TEST(Optimize, FindsTheObviousPlacement) {
  CollaborationMatrix pairs(4, 4);
  pairs(0, 2) = pairs(2, 0) = 3, pairs(1, 3) = pairs(3, 1) = 2, pairs(0, 1) = pairs(1, 0) = 1;
  const auto result = optimize_placement(token_sets_from_pairs(pairs), flat(2), {}, {});
  EXPECT_NEAR(result.copies_per_token, 7.0 / 6, 1e-12);
  EXPECT_NEAR(result.imbalance, 7.0 / 6, 1e-12);
  EXPECT_LE(result.copy_cost_bound, result.copy_cost);
}

TEST(PartitionLevel, TracksWhatRecountingGives) {
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 rng(seed);
    const auto num_experts = std::int32_t(4 + seed % 9), num_groups = std::int32_t(2 + seed % 3);
    const auto top_k = std::int32_t(1 + seed % 4);
    const TokenSets sets = random_sets(num_experts, top_k, 200, seed);
    const SetIndex index(sets);
    const std::int32_t num_items = (num_experts + num_groups - 1) / num_groups * num_groups;
    auto groups = random_groups(num_items, num_groups, rng);
    PartitionLevel level(index, groups, num_groups);
    const auto pairs = pair_counts(index, num_items);
    PairLevel pair_level(pairs, groups, num_groups);
    for (int step = 0; step < 60; ++step) {
      EXPECT_EQ(level.cost(), copies_of(sets, groups));
      const auto a = std::int32_t(uniform_below(std::uint64_t(num_items), rng));
      const auto b = std::int32_t(uniform_below(std::uint64_t(num_items), rng));
      if (at(groups, a) == at(groups, b)) continue;
      std::swap(at(groups, a), at(groups, b));
      EXPECT_EQ(level.cost() + level.swap_delta(a, b), copies_of(sets, groups));
      const std::int64_t inside = pair_level.cost() + pair_level.swap_delta(a, b);
      level.swap(a, b), pair_level.swap(a, b);
      EXPECT_EQ(pair_level.cost(), inside);
      EXPECT_EQ(pair_level.cost(), PairLevel(pairs, groups, num_groups).cost());
    }
  }
}

TEST(Optimize, FindsTheOptimumOfSmallInstances) {
  for (std::uint64_t seed = 0; seed < 12; ++seed) {
    SCOPED_TRACE(seed);
    const std::int32_t ep_size = seed % 2 == 0 ? 2 : 4;
    const TokenSets sets = random_sets(8, std::int32_t(2 + seed % 3), 300, seed);
    const auto result = optimize_placement(sets, flat(ep_size), {}, {.seed = seed, .effort = 0.01});
    const double least = least_copies_per_token(sets, ep_size);
    EXPECT_NEAR(result.copies_per_token, least, 1e-12);
    EXPECT_LE(result.copy_cost_bound, least);
    EXPECT_GT(result.copy_cost_bound, 0.6 * least) << "a bound is to say something";
  }
}

TEST(Optimize, KeepsTheBoundOnImbalance) {
  const TokenSets sets = random_sets(16, 4, 2000, 5);
  const auto free = optimize_placement(sets, flat(4), {}, {.effort = 0.01});
  const auto bound = optimize_placement(sets, flat(4), {.max_imbalance = 1.1}, {.effort = 0.01});
  EXPECT_TRUE(bound.meets_bounds);
  EXPECT_LE(bound.imbalance, 1.1);
  EXPECT_GE(bound.copy_cost, free.copy_cost);
  const auto balanced = optimize_placement(
      sets, flat(4), {.max_copy_cost = bound.copy_cost, .goal = Goal::kImbalance},
      {.effort = 0.01});
  EXPECT_TRUE(balanced.meets_bounds);
  EXPECT_LE(balanced.copy_cost, bound.copy_cost + 1e-12);
  EXPECT_LE(balanced.imbalance, bound.imbalance);
  const auto impossible =
      optimize_placement(sets, flat(4), {.max_imbalance = 0.99}, {.effort = 0.01});
  EXPECT_FALSE(impossible.meets_bounds);
}

TEST(Optimize, PutsReplicasOnDifferentNodesFirst) {
  for (std::uint64_t seed = 0; seed < 5; ++seed) {
    SCOPED_TRACE(seed);
    const Cluster cluster{.num_nodes = 3, .ranks_per_node = 2};
    const TokenSets sets = random_sets(10, 3, 500, seed);  // 12 slots at least: 2 redundant
    const auto result =
        optimize_placement(sets, cluster, objective_for(cluster),
                           {.seed = seed, .effort = 0.0005, .redundant_slots_per_rank = 1});
    EXPECT_EQ(result.placement.slots_per_rank(), 3);
    ASSERT_NO_THROW(check_placement(result.placement));
    for (const auto& hosts : ranks_of_experts(result.placement)) {
      std::set<std::int32_t> nodes;
      for (const RankId rank : hosts) nodes.insert(cluster.node_of(rank));
      EXPECT_EQ(std::ssize(nodes), std::min<std::ptrdiff_t>(std::ssize(hosts), 3));
    }
    const std::int64_t fewest = fewest_copies(sets, result.placement);
    EXPECT_NEAR(result.copies_per_token * static_cast<double>(sets.num_tokens), double(fewest),
                1e-6);
    EXPECT_LE(result.copy_cost_bound, result.copy_cost);
  }
}

// Replicas come and go here, so an expert of three has to choose which to lose.
TEST(Optimize, LeavesReplicasOnDifferentNodes) {
  const Cluster cluster{.num_nodes = 2, .ranks_per_node = 2};
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE(seed);
    const TokenSets sets = random_sets(8, 3, 300, seed);
    const auto result = optimize_placement(
        sets, cluster, {.max_imbalance = 1.05},
        {.seed = seed, .effort = 1e-3, .redundant_slots_per_rank = std::int32_t(1 + seed % 2)});
    for (const auto& hosts : ranks_of_experts(result.placement)) {
      std::set<std::int32_t> nodes;
      for (const RankId rank : hosts) nodes.insert(cluster.node_of(rank));
      EXPECT_EQ(std::ssize(nodes), std::min<std::ptrdiff_t>(std::ssize(hosts), 2));
    }
  }
}

// Greedily, the first nodes take their experts and the last has empty slots for its own alone.
TEST(Optimize, FillsEverySlotWhereOnlyTheNodesOwnExpertsAreLeft) {
  TokenSetBuilder builder(8, 2);
  Matrix<ExpertId> tokens(2, 2);
  tokens(0, 0) = ExpertId{4}, tokens(0, 1) = ExpertId{2};
  tokens(1, 0) = ExpertId{3}, tokens(1, 1) = ExpertId{5};
  builder.add(tokens);
  const Cluster cluster{.num_nodes = 4, .ranks_per_node = 2};
  PlacementObjective objective = objective_for(cluster);
  objective.max_imbalance = 1.1;
  const auto result = optimize_placement(builder.finish(), cluster, objective,
                                         {.effort = 1e-4, .redundant_slots_per_rank = 4});
  ASSERT_NO_THROW(check_placement(result.placement));
}

TEST(Optimize, KeepsGroupsInTheirNode) {
  const Cluster cluster{.num_nodes = 2, .ranks_per_node = 2};
  const TokenSets sets = random_sets(16, 4, 500, 3);
  const auto result =
      optimize_placement(sets, cluster, objective_for(cluster),
                         {.effort = 0.001, .redundant_slots_per_rank = 1, .num_groups = 4});
  const auto hosts = ranks_of_experts(result.placement);
  for (std::size_t e = 0; e < hosts.size(); ++e) {
    for (const RankId rank : hosts[e]) {
      EXPECT_EQ(cluster.node_of(rank), cluster.node_of(hosts[e / 4 * 4][0])) << "expert " << e;
    }
  }
  EXPECT_THROW(optimize_placement(sets, cluster, {}, {.num_groups = 3}), Error);
}

TEST(Optimize, DoesNotSearchForNodesOfGroupsWhenStopped) {
  const std::atomic<bool> stop = true;
  const TokenSets sets = random_sets(16, 4, 500, 3);
  const Cluster cluster{.num_nodes = 2, .ranks_per_node = 2};
  const OptimizeOptions options{.effort = 0.001, .num_groups = 8};
  const auto node_of_groups = [&](const OptimizeOptions& how) {
    const auto hosts =
        ranks_of_experts(optimize_placement(sets, cluster, objective_for(cluster), how).placement);
    std::vector<std::int32_t> nodes;
    for (std::size_t e = 0; e < hosts.size(); e += 2) {
      nodes.push_back(cluster.node_of(hosts[e][0]));
    }
    return nodes;
  };
  OptimizeOptions stopped = options;
  stopped.stop = &stop;
  const std::vector<std::int32_t> contiguous = {0, 0, 0, 0, 1, 1, 1, 1};
  EXPECT_NE(node_of_groups(options), contiguous);
  EXPECT_EQ(node_of_groups(stopped), contiguous);
}

TEST(Optimize, DoesNotDependOnThreadsAndReportsProgress) {
  struct Counter final : Progress {
    void update(std::int64_t done, std::int64_t total) override { last = {done, total}; }
    std::pair<std::int64_t, std::int64_t> last;
  } counter;
  const auto load = [](std::int64_t layer) {
    return random_sets(16, 4, 300, std::uint64_t(layer));
  };
  const auto solve = [&](int num_threads) {
    return optimize_placements(
        5, load, flat(4), {.max_imbalance = 1.1},
        {.effort = 0.0005, .redundant_slots_per_rank = 1, .num_threads = num_threads}, counter);
  };
  const auto one = solve(1), three = solve(3);
  for (std::size_t layer = 0; layer < one.size(); ++layer) {
    EXPECT_EQ(one[layer].placement, three[layer].placement) << "layer " << layer;
  }
  EXPECT_EQ(counter.last, std::pair(std::int64_t{5}, std::int64_t{5}));
}

TEST(Optimize, ReturnsTheBestSoFarWhenStopped) {
  const std::atomic<bool> stop = true;
  const TokenSets sets = random_sets(16, 4, 300, 1);
  const auto result = optimize_placement(
      sets, flat(4), {}, {.effort = 1e6, .stop = &stop, .redundant_slots_per_rank = 1});
  ASSERT_NO_THROW(check_placement(result.placement));
  EXPECT_TRUE(result.is_cut_short);
  const auto without_replicas = optimize_placement(sets, flat(4), {}, {.stop = &stop});
  ASSERT_NO_THROW(check_placement(without_replicas.placement));
  EXPECT_TRUE(without_replicas.is_cut_short) << "there is no proof in no time";
  EXPECT_FALSE(optimize_placement(sets, flat(4), {}, {.effort = 0.01}).is_cut_short);
  const auto timed = optimize_placement(sets, flat(4), {}, {.effort = 1e6, .seconds = 0.05});
  ASSERT_NO_THROW(check_placement(timed.placement));
}

TEST(Optimize, SketchesTheLayersThatItCameTooLateFor) {
  const std::atomic<bool> stop = true;
  const auto load = [](std::int64_t layer) {
    return random_sets(16, 4, 300, std::uint64_t(layer));
  };
  NoProgress progress;
  const auto layers = optimize_placements(3, load, flat(4), {}, {.stop = &stop}, progress);
  for (std::int64_t layer = 0; layer < 3; ++layer) {
    const auto& result = at(layers, layer);
    const auto contiguous = measure_placement(load(layer), flat(4), {}, place_contiguous(16, 4));
    EXPECT_LT(result.copy_cost, 0.99 * contiguous.copy_cost);
    EXPECT_TRUE(result.is_cut_short);
  }
}

// 24 layers on 2 threads are 12 rounds: the first layer gets a twelfth of the time, the last all
// that is left.
TEST(SearchLimits, GivesEveryLayerAnEqualShareOfTheTimeThatIsLeft) {
  using std::chrono::seconds;
  const std::chrono::steady_clock::time_point now(seconds(100));
  const std::atomic<bool> stop = false;
  const SearchLimits all{.deadline = now + seconds(60), .stop = &stop};
  EXPECT_EQ(all.share_of_one(now, 24, 2).deadline, now + seconds(5));
  EXPECT_EQ(all.share_of_one(now + seconds(20), 9, 2).deadline, now + seconds(28));
  EXPECT_EQ(all.share_of_one(now + seconds(50), 1, 2).deadline, now + seconds(60));
  EXPECT_EQ(all.share_of_one(now + seconds(70), 4, 2).deadline, now + seconds(60)) << "in the past";
  EXPECT_EQ(all.share_of_one(now, 24, 2).stop, &stop);
  EXPECT_FALSE(SearchLimits{}.share_of_one(now, 24, 2).deadline);
}

TEST(Optimize, TakesNoEffortAndNoTimeForTooMuch) {
  constexpr double kEndless = std::numeric_limits<double>::infinity();
  const TokenSets sets = random_sets(16, 4, 300, 1);
  const double start =
      measure_placement(sets, flat(4), {},
                        testing::make_placement(
                            16, {{0, 1, 2, 3}, {4, 5, 6, 7}, {8, 9, 10, 11}, {12, 13, 14, 15}}))
          .copy_cost;
  for (const auto& [effort, seconds] : {std::pair(0.01, 1e10), std::pair(0.01, kEndless),
                                        std::pair(1e13, 0.2), std::pair(kEndless, 0.2)}) {
    const auto result = optimize_placement(
        sets, flat(4), {}, {.effort = effort, .seconds = seconds, .max_columns = 0});
    EXPECT_LT(result.copy_cost, 0.99 * start) << "effort " << effort << ", seconds " << seconds;
  }
  EXPECT_EQ(testing::error_of([&] { optimize_placement(sets, flat(4), {}, {.effort = 0}); }),
            "the effort is 0, but must be above 0");
  EXPECT_EQ(
      testing::error_of([&] { optimize_placement(sets, flat(4), {}, {.seconds = std::nan("")}); }),
      "nan seconds for a search must be above 0");
}

TEST(Optimize, TakesATraceWithoutTokens) {
  const auto result = optimize_placement(TokenSetBuilder(6, 2).finish(), flat(4), {}, {});
  ASSERT_NO_THROW(check_placement(result.placement));
  EXPECT_EQ(result.copy_cost, 0);
}

TEST(WithoutDominated, KeepsWhatNothingElseBeats) {
  const auto front = without_dominated({{.copy_cost = 2, .imbalance = 1.5},
                                        {.copy_cost = 3, .imbalance = 1.5},
                                        {.copy_cost = 1, .imbalance = 2},
                                        {.copy_cost = 2, .imbalance = 1.6},
                                        {.copy_cost = 4, .imbalance = 1}});
  ASSERT_EQ(front.size(), 3u);
  EXPECT_EQ(front[0].imbalance, 2);
  EXPECT_EQ(front[1].imbalance, 1.5);
  EXPECT_EQ(front[1].copy_cost, 2);
  EXPECT_EQ(front[2].imbalance, 1);
}

TEST(ParetoFront, GoesFromFewCopiesToGoodBalance) {
  const TokenSets sets = random_sets(16, 4, 2000, 8);
  const auto front = pareto_front(sets, flat(4), {}, {.effort = 0.005}, 6);
  ASSERT_GE(front.size(), 2u);
  for (std::size_t point = 1; point < front.size(); ++point) {
    EXPECT_GT(front[point].copy_cost, front[point - 1].copy_cost);
    EXPECT_LT(front[point].imbalance, front[point - 1].imbalance);
  }
  const OptimizeOptions options{.effort = 0.005};
  const auto fewest = optimize_placement(sets, flat(4), {}, options);
  const auto balanced = optimize_placement(sets, flat(4), {.goal = Goal::kImbalance}, options);
  EXPECT_EQ(front.front().copy_cost, fewest.copy_cost);
  EXPECT_EQ(front.back().imbalance, balanced.imbalance);
  const double middle = std::sqrt(fewest.imbalance * balanced.imbalance);
  const auto three = pareto_front(sets, flat(4), {}, options, 3);
  const auto within = optimize_placement(sets, flat(4), {.max_imbalance = middle}, options);
  ASSERT_EQ(three.size(), 3u);
  EXPECT_EQ(three[1].copy_cost, within.copy_cost);
  EXPECT_LE(three[1].imbalance, middle);
  EXPECT_THROW(pareto_front(sets, flat(4), {}, {}, 1), Error);
}

TEST(ParetoFront, SaysWhatItMissedAndWhatEndedIt) {
  const std::atomic<bool> stop = true;
  const TokenSets sets = random_sets(16, 4, 2000, 8);
  for (const auto& point : pareto_front(sets, flat(4), {}, {.stop = &stop}, 3)) {
    EXPECT_TRUE(point.is_cut_short);
    EXPECT_TRUE(point.meets_bounds) << "it is given none";
  }
  for (const auto& point :
       pareto_front(sets, flat(4), {.max_imbalance = 0.99}, {.effort = 0.005}, 3)) {
    EXPECT_FALSE(point.meets_bounds);
    EXPECT_FALSE(point.is_cut_short);
  }
}

TEST(Optimize, ProvesWhatReachesItsBound) {
  const TokenSets sets = random_sets(8, 3, 300, 1);
  const auto everywhere = optimize_placement(sets, flat(2), {.max_imbalance = 1.1},
                                             {.effort = 0.01, .redundant_slots_per_rank = 4});
  EXPECT_TRUE(everywhere.is_proved_optimal);
  EXPECT_EQ(everywhere.copies_per_token, 1);
  const auto missed = optimize_placement(sets, flat(2), {.max_imbalance = 0.9},
                                         {.effort = 0.01, .redundant_slots_per_rank = 4});
  EXPECT_FALSE(missed.is_proved_optimal) << "no placement is within the bound";
}

// A .npy file of int64 [32, 8, 8] in C order; the header's length is at byte 8.
std::vector<CollaborationMatrix> read_matrices(const std::filesystem::path& path) {
  const auto bytes = read_file(path);
  std::uint16_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data() + 8, sizeof header_bytes);
  const std::byte* next = bytes.data() + 10 + header_bytes;
  std::vector<CollaborationMatrix> matrices(32, CollaborationMatrix(8, 8));
  for (auto& matrix : matrices) {
    std::memcpy(matrix.all().data(), next, matrix.all().size_bytes());
    next += matrix.all().size_bytes();
  }
  return matrices;
}

// Mean over layers of the distinct ranks per token: the optima, enumerated independently.
TEST(OptimizeOnRealData, ReproducesTheOptimaOfThePublishedMatrices) {
  const std::filesystem::path folder = std::filesystem::path(C2R_DATA_DIR) / "c2r-official";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << folder << " is not there";
  const std::map<std::string, std::pair<double, double>> kOptima = {
      {"base", {1.268, 1.522}},   {"topt_1", {1.079, 1.246}}, {"topt_2", {1.178, 1.437}},
      {"topt_3", {1.231, 1.487}}, {"topt_4", {1.253, 1.508}}, {"topt_5", {1.264, 1.518}},
      {"topt_6", {1.268, 1.522}}};
  for (const auto& [name, optima] : kOptima) {
    SCOPED_TRACE(name);
    double two = 0, four = 0;
    for (const auto& matrix : read_matrices(folder / ("llama_moe_3_5b_2_8_" + name + "_i64.npy"))) {
      const TokenSets sets = token_sets_from_pairs(matrix);
      two += optimize_placement(sets, flat(2), {}, {.effort = 0.003}).copies_per_token / 32;
      four += optimize_placement(sets, flat(4), {}, {.effort = 0.003}).copies_per_token / 32;
    }
    EXPECT_NEAR(two, optima.first, 0.0005);
    EXPECT_NEAR(four, optima.second, 0.0005);
  }
}

}  // namespace
}  // namespace c2r
