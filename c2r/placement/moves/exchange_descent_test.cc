// Tests of descents by exchanges against trying every exchange of slots, with every step counted
// anew.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <set>

#include "c2r/placement/moves/exchange_descent_internal.h"
#include "c2r/placement/search/measure_state.h"
#include "c2r/placement/search/optimize_testing_internal.h"
#include "c2r/placement/testing_internal.h"

namespace c2r {
namespace {

using internal::ExchangeDescent;
using internal::RunningState;

// Where each item is, and the energy by its definition: tokens stay with their items.
struct ItemsOnRanks {
  const RunningState& state;
  std::vector<std::int32_t> rank_of;

  explicit ItemsOnRanks(const RunningState& of) : state(of) {
    for (std::int32_t item = 0; item < of.served.num_experts(); ++item) {
      rank_of.push_back(item / of.running.slots_per_rank());
    }
  }
  std::int32_t node_of(std::int32_t item) const {
    return state.cluster.node_of(RankId{at(rank_of, item)});
  }
  ExpertId expert_of(std::int32_t item) const { return at(state.running.slots.all(), item); }

  double energy() const {
    std::vector<std::int64_t> loads(std::size_t(state.cluster.ep_size()));
    std::int64_t rank_copies = 0, node_copies = 0;
    for (std::int64_t set = 0; set < state.served.num_sets(); ++set) {
      std::set<std::int32_t> ranks, nodes;
      for (const std::uint16_t item : state.served.experts(set)) {
        at(loads, rank_of[item]) += state.served.weight(set);
        ranks.insert(rank_of[item]);
        nodes.insert(node_of(item));
      }
      rank_copies += std::ssize(ranks) * state.served.weight(set);
      node_copies += std::ssize(nodes) * state.served.weight(set);
    }
    const double cost = state.energy.cost(rank_copies, node_copies);
    return state.energy.violation(cost, loads) + state.energy.value(cost, loads);
  }

  // Whether no rank holds an expert twice, and the replicas of each are on `num_nodes` at least.
  bool is_allowed(std::span<const std::size_t> num_nodes) const {
    for (std::int32_t e = 0; e < state.running.num_experts; ++e) {
      std::set<std::int32_t> ranks, nodes;
      for (const std::int32_t item : at(state.items_of, e)) {
        ranks.insert(at(rank_of, item));
        nodes.insert(node_of(item));
      }
      if (ranks.size() < at(state.items_of, e).size() || nodes.size() < at(num_nodes, e)) {
        return false;
      }
    }
    return true;
  }
  std::vector<std::size_t> nodes_of_experts() const {
    std::vector<std::size_t> num_nodes;
    for (const auto& items : state.items_of) {
      std::set<std::int32_t> nodes;
      for (const std::int32_t item : items) nodes.insert(node_of(item));
      num_nodes.push_back(nodes.size());
    }
    return num_nodes;
  }

  double best_of_all_exchanges() {
    double best = std::numeric_limits<double>::infinity();
    const auto num_nodes = nodes_of_experts();
    for (std::size_t a = 0; a < rank_of.size(); ++a) {
      for (std::size_t b = a + 1; b < rank_of.size(); ++b) {
        if (rank_of[a] == rank_of[b]) continue;
        if (expert_of(std::int32_t(a)) == expert_of(std::int32_t(b))) continue;  // moves no expert
        const bool is_kept = node_of(std::int32_t(a)) == node_of(std::int32_t(b));
        if (state.is_fixed_to_nodes && !is_kept) continue;
        std::swap(rank_of[a], rank_of[b]);
        if (is_allowed(num_nodes)) best = std::min(best, energy());
        std::swap(rank_of[a], rank_of[b]);
      }
    }
    return best;
  }
};

TEST(ExchangeDescent, EveryStepIsTheBestOfAllExchangesOfSlots) {
  int num_steps = 0;
  for (unsigned seed = 0; seed < 24; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 rng(seed);
    const Cluster cluster = seed % 2 == 0 ? flat(4) : Cluster{.num_nodes = 2, .ranks_per_node = 2};
    PlacementObjective objective = objective_for(cluster);
    if (seed % 3 == 0) objective.imbalance_weight = 0.7;
    if (seed % 3 == 1) objective.max_imbalance = 1.1;
    if (seed % 4 == 2) objective.max_copy_cost = 2.2;
    const auto sets = random_sets(12, 3, 60, seed);
    const RunningState state(sets, cluster, objective,
                             testing::random_placement(12, 4, int(seed % 3), rng), seed % 5 == 4);
    ExchangeDescent descent(state);
    ItemsOnRanks items(state);
    EXPECT_NEAR(descent.energy(), items.energy(), 1e-6);
    for (;;) {
      const double before = items.energy(), best = items.best_of_all_exchanges();
      const auto step = descent.best_step();
      if (!step) {
        EXPECT_GE(best, before - 1e-6) << "an exchange that lowers the energy was missed";
        break;
      }
      ASSERT_NEAR(step->energy, best, 1e-6) << "after " << num_steps << " steps";
      std::swap(at(items.rank_of, step->slot_a), at(items.rank_of, step->slot_b));
      ASSERT_NEAR(items.energy(), best, 1e-6);
      ++num_steps;
    }
  }
  EXPECT_GT(num_steps, 60);
}

}  // namespace
}  // namespace c2r
