// Tests of the EPLB baseline against results of its published algorithm.
#include "c2r/placement/baselines/eplb.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "c2r/core/rng.h"
#include "c2r/core/testing.h"

namespace c2r {
namespace {

std::vector<int> experts_of(const EplbResult& result) {
  std::vector<int> experts;
  for (const ExpertId e : result.expert_of_slot) experts.push_back(static_cast<int>(e));
  return experts;
}

// The example and the output in the README of deepseek-ai/EPLB.
TEST(Eplb, EqualsThePublishedExample) {
  const EplbOptions options = {.num_slots = 16, .num_groups = 4, .num_nodes = 2, .num_ranks = 8};
  const std::vector<float> first = {90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86};
  EXPECT_EQ(experts_of(rebalance_eplb(first, options)),
            (std::vector{5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1}));
  const std::vector<float> second = {20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27};
  const EplbResult result = rebalance_eplb(second, options);
  EXPECT_EQ(experts_of(result), (std::vector{7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1}));
  EXPECT_EQ(result.num_replicas, (std::vector{1, 2, 1, 1, 1, 2, 2, 1, 2, 1, 1, 1}));
}

// Worked by hand: expert 0 gets both redundant slots (9, then 4.5, against 3), and one node packs
// its slots 3, 3, 3, 3, 2, 1 (experts 0, 1, 0, 0, 2, 3; of equals the lower slot first) to 3 ranks,
// of equals the lower first.
TEST(Eplb, BalancesGloballyWhereGroupsDoNotFitNodes) {
  const std::vector<float> loads = {9, 3, 2, 1};
  const EplbResult result =
      rebalance_eplb(loads, {.num_slots = 6, .num_groups = 1, .num_nodes = 3, .num_ranks = 3});
  EXPECT_EQ(result.num_replicas, (std::vector{3, 1, 1, 1}));
  EXPECT_EQ(experts_of(result), (std::vector{0, 0, 1, 2, 0, 3}));
  EXPECT_EQ(result.replica_of_slot, (std::vector{0, 2, 0, 0, 1, 0}));
}

TEST(Eplb, PlacesEveryReplicaOnceOnRandomLoads) {
  for (unsigned seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    std::mt19937_64 rng(seed);
    const auto nodes = std::int32_t(1 + seed % 3);
    const auto ranks = nodes * std::int32_t(1 + seed % 4);
    std::vector<float> loads(std::size_t(12 * ranks));
    for (float& load : loads) load = float(uniform_below(1000, rng));
    const auto slots = std::int32_t(loads.size()) + ranks * std::int32_t(seed % 5);
    const EplbResult result = rebalance_eplb(
        loads, {.num_slots = slots, .num_groups = 12, .num_nodes = nodes, .num_ranks = ranks});
    std::vector<std::vector<std::int32_t>> replicas(loads.size());
    for (std::size_t slot = 0; slot < result.expert_of_slot.size(); ++slot) {
      replicas[index(result.expert_of_slot[slot])].push_back(result.replica_of_slot[slot]);
    }
    for (std::size_t e = 0; e < loads.size(); ++e) {
      std::ranges::sort(replicas[e]);
      ASSERT_EQ(std::ssize(replicas[e]), result.num_replicas[e]);
      for (std::size_t i = 0; i < replicas[e].size(); ++i)
        EXPECT_EQ(replicas[e][i], std::int32_t(i));
    }
  }
}

TEST(Eplb, SaysWhatDoesNotDivide) {
  EXPECT_EQ(testing::error_of(
                [] { rebalance_eplb(std::vector<float>(12), {.num_slots = 15, .num_ranks = 8}); }),
            "EPLB cannot place 12 experts in 1 groups into 15 slots of 8 ranks on 1 nodes: groups "
            "must divide experts, nodes must divide ranks, ranks must divide slots");
}

}  // namespace
}  // namespace c2r
