// Tests of the balancer: by hand, by enumeration, and beside DeepSeek's algorithm.
#include "c2r/placement/baselines/balance.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "c2r/core/at.h"
#include "c2r/core/rng.h"
#include "c2r/core/testing.h"
#include "c2r/placement/baselines/baselines.h"
#include "c2r/placement/baselines/eplb.h"
#include "c2r/placement/baselines/repair.h"
#include "c2r/placement/testing_internal.h"

namespace c2r {
namespace {

using testing::error_of;
using testing::make_placement;

CollaborationMatrix counts_of(std::span<const std::int64_t> loads) {
  CollaborationMatrix counts(std::ssize(loads), std::ssize(loads));
  for (std::int64_t e = 0; e < std::ssize(loads); ++e) counts(e, e) = at(loads, e);
  return counts;
}

// @param num_repeats grows by the slots whose expert an earlier slot of their rank holds; may be
// null
double imbalance_by(std::string_view method, std::span<const std::int64_t> loads,
                    const Cluster& cluster, std::int32_t slots_per_rank,
                    std::int64_t* num_repeats = nullptr) {
  const CollaborationMatrix counts = counts_of(loads);
  const Placement placement = place_baseline(
      method,
      {.counts = counts, .has_pairs = false, .cluster = cluster, .slots_per_rank = slots_per_rank});
  Matrix<ExpertId> slots = placement.slots;
  if (num_repeats != nullptr) *num_repeats += empty_repeats(slots);
  return imbalance_of_loads(placement, loads);
}

TEST(Balance, SharesALoadAmongReplicas) {
  const std::vector<std::int64_t> loads = {6, 1, 3};
  // Ranks have 3 + 1 and 3 + 3.
  EXPECT_DOUBLE_EQ(imbalance_of_loads(make_placement(3, {{0, 1}, {0, 2}}), loads), 6 / 5.0);
  EXPECT_EQ(imbalance_of_loads(make_placement(3, {{0, 1}, {0, 2}}), std::vector<std::int64_t>(3)),
            1);
  const std::vector<std::vector<std::int32_t>> twice = {{0, 0, 1}, {0, 2, 1}};
  EXPECT_DOUBLE_EQ(imbalance_of_loads(placement_of_ranks(3, twice), loads), 5.5 / 5)
      << "4 + 0.5 and 2 + 3 + 0.5";
  EXPECT_EQ(error_of([&] {
              imbalance_of_loads(make_placement(2, {{0}, {1}}), loads);
            }),
            "there are loads of 3 experts, but the placement is for 2");
}

TEST(Balance, BoundsWhatNoPlacementCanBeBelow) {
  EXPECT_EQ(imbalance_bound_of_loads(std::vector<std::int64_t>{8, 1, 1, 2}, 2, 4), 8 * 2 / 12.0);
  EXPECT_EQ(imbalance_bound_of_loads(std::vector<std::int64_t>{8, 1, 1, 2}, 2, 6), 1)
      << "with a replica the expert is half";
  EXPECT_EQ(imbalance_bound_of_loads(std::vector<std::int64_t>{0, 0}, 2, 2), 1);
}

// 6 experts on 2 ranks of 3 slots: 20 splits.
TEST(Balance, FindsWhatEnumerationFinds) {
  std::mt19937_64 rng(5);
  for (int round = 0; round < 50; ++round) {
    std::vector<std::int64_t> loads(6);
    for (auto& load : loads) load = static_cast<std::int64_t>(uniform_below(20, rng));
    double best = 100;
    for (unsigned set = 0; set < 64; ++set) {
      std::vector<std::int32_t> ranks[2];
      for (std::int32_t e = 0; e < 6; ++e) ranks[(set >> e) & 1].push_back(e);
      if (ranks[0].size() != 3) continue;
      best = std::min(
          best, imbalance_of_loads(make_placement(6, {{ranks[0][0], ranks[0][1], ranks[0][2]},
                                                      {ranks[1][0], ranks[1][1], ranks[1][2]}}),
                                   loads));
    }
    const double found = imbalance_by("balance", loads, {.ranks_per_node = 2}, 3);
    EXPECT_LE(found, best * 1.2) << "round " << round;
    EXPECT_GE(found, best - 1e-12);
    EXPECT_GE(found, imbalance_bound_of_loads(loads, 2, 6) - 1e-12);
  }
}

// How even ranks are after DeepSeek's algorithm, as it counts itself: each slot serves a share,
// also two slots of one rank.
double imbalance_by_deepseek(std::span<const std::int64_t> loads, const Cluster& cluster,
                             std::int32_t slots_per_rank) {
  const std::vector<float> as_float(loads.begin(), loads.end());
  const EplbResult result =
      rebalance_eplb(as_float, {.num_slots = slots_per_rank * cluster.ep_size(),
                                .num_nodes = 1,
                                .num_ranks = cluster.ep_size()});
  std::vector<double> rank_load(std::size_t(cluster.ep_size()));
  double total = 0;
  for (std::int64_t slot = 0; slot < std::ssize(result.expert_of_slot); ++slot) {
    const ExpertId e = at(result.expert_of_slot, slot);
    const double share = static_cast<double>(at(loads, e)) / at(result.num_replicas, e);
    at(rank_load, slot / slots_per_rank) += share;
    total += share;
  }
  return total > 0 ? std::ranges::max(rank_load) * cluster.ep_size() / total : 1;
}

TEST(Balance, IsNeverLessEvenThanDeepSeeksAlgorithm) {
  for (unsigned seed = 0; seed < 40; ++seed) {
    std::mt19937_64 rng(seed);
    const auto num_experts = static_cast<std::int32_t>(16 << uniform_below(4, rng));
    const Cluster cluster{.ranks_per_node = std::int32_t(4 << uniform_below(2, rng))};
    const auto redundant = static_cast<std::int32_t>(uniform_below(3, rng));
    const std::int32_t slots = num_experts / cluster.ep_size() + redundant;
    std::vector<std::int64_t> loads(static_cast<std::size_t>(num_experts));
    for (std::size_t e = 0; e < loads.size(); ++e) {  // few are hot, as in recordings
      const double hot = 1e5 / std::pow(1.0 + double(e), 0.2 * double(seed % 6));
      loads[e] = static_cast<std::int64_t>(hot * (0.5 + double(uniform_below(1000, rng)) / 1000));
    }
    const double found = imbalance_by("balance", loads, cluster, slots);
    EXPECT_LE(found, imbalance_by_deepseek(loads, cluster, slots) + 1e-9) << "seed " << seed;
    EXPECT_LE(found, imbalance_by("eplb", loads, cluster, slots) + 1e-9) << "seed " << seed;
    EXPECT_GE(found, imbalance_bound_of_loads(loads, cluster.ep_size(),
                                              std::int64_t{slots} * cluster.ep_size()) -
                         1e-9);
  }
}

// Ties, experts without any load, one that has most of it.
std::vector<std::int64_t> unusual_loads(std::int32_t num_experts, unsigned seed,
                                        std::mt19937_64& rng) {
  std::vector<std::int64_t> loads(static_cast<std::size_t>(num_experts));
  for (std::size_t e = 0; e < loads.size(); ++e) {
    const auto any = static_cast<std::int64_t>(uniform_below(1000, rng));
    loads[e] = seed % 5 == 0   ? 100 * (1 + any % 3)
               : seed % 5 == 1 ? (any % 3 == 0 ? any : 0)
               : seed % 5 == 2 ? 10
               : seed % 5 == 3 ? std::int64_t(1e5 / std::pow(1.0 + double(e), double(any) / 500))
                               : any;
  }
  if (seed % 5 == 2) loads[uniform_below(loads.size(), rng)] = 30 * num_experts;
  return loads;
}

// Few experts for many slots, where DeepSeek's algorithm puts an expert on a rank twice.
TEST(Balance, IsNeverLessEvenThanDeepSeeksAlgorithmOnUnusualLoads) {
  std::int64_t num_repeats = 0;
  for (unsigned seed = 0; seed < 500; ++seed) {
    std::mt19937_64 rng(seed);
    const Cluster cluster{.ranks_per_node = std::int32_t(1 + uniform_below(12, rng))};
    const std::int32_t of_rank[] = {1, 2, 3, 4, 5, 8};
    const auto num_experts = cluster.ep_size() * of_rank[uniform_below(6, rng)];
    const auto redundant = static_cast<std::int32_t>(uniform_below(5, rng));
    const std::int32_t slots = num_experts / cluster.ep_size() + redundant;
    if (slots > num_experts) continue;
    const auto loads = unusual_loads(num_experts, seed, rng);
    const double found = imbalance_by("balance", loads, cluster, slots, &num_repeats);
    EXPECT_LE(found, imbalance_by("eplb", loads, cluster, slots) + 1e-9) << "seed " << seed;
    EXPECT_LE(found, imbalance_by_deepseek(loads, cluster, slots) + 1e-9) << "seed " << seed;
  }
  EXPECT_GT(num_repeats, 0) << "where an expert is better twice on a rank";
}

TEST(Balance, WorksWithoutAnyLoad) {
  EXPECT_EQ(imbalance_by("balance", std::vector<std::int64_t>(8), {.ranks_per_node = 4}, 3), 1);
}

}  // namespace
}  // namespace c2r
