// Tests that the tables of served slots equal recounts, and what follows from them for the energy.
#include "c2r/placement/search/replicas/served_tables.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <functional>
#include <set>
#include <vector>

#include "c2r/placement/search/fast_random.h"
#include "c2r/placement/search/optimize_testing_internal.h"
#include "c2r/placement/search/replicas/change_estimate.h"
#include "c2r/placement/search/replicas/replica_state.h"

namespace c2r {
namespace {

using Change = ReplicaState::Change;

constexpr std::int32_t kNumRanks = 4, kSlotsPerRank = 3, kNumSlots = kNumRanks * kSlotsPerRank;

// `num_experts` on 4 ranks of 3 slots, an expert at most once on a rank. [ep_size, slots]
Placement placement_of(std::int32_t num_experts, FastRandom& random) {
  Placement placement{.num_experts = num_experts, .slots = {kNumRanks, kSlotsPerRank}};
  for (std::int32_t slot = 0; slot < kNumSlots; ++slot) {
    placement.slots.all()[std::size_t(slot)] = ExpertId{slot % num_experts};
  }
  for (int swap = 0; swap < 50; ++swap) {
    auto& a = placement.slots(random.below(kNumRanks), random.below(kSlotsPerRank));
    auto& b = placement.slots(random.below(kNumRanks), random.below(kSlotsPerRank));
    std::swap(a, b);
    for (std::int64_t rank = 0; rank < kNumRanks; ++rank) {
      const auto row = placement.slots.row(rank);
      if (std::set(row.begin(), row.end()).size() < row.size()) {
        std::swap(a, b);
        break;
      }
    }
  }
  return placement;
}

// The definition: the groups that the slots of all tokens are in, if slots are where `rank_of`
// says.
ServedTables::Copies recounted(const SetIndex& index, const ReplicaState& state,
                               const Cluster& cluster,
                               const std::function<std::int32_t(std::int32_t slot)>& rank_of) {
  ServedTables::Copies copies;
  for (std::int64_t set = 0; set < index.num_sets(); ++set) {
    std::set<std::int32_t> ranks, nodes;
    for (std::size_t i = 0; i < index.experts(set).size(); ++i) {
      const std::int32_t slot =
          state.tables().slot_of(index.experts(set)[i], state.ranks_of(set)[i]);
      ranks.insert(rank_of(slot));
      nodes.insert(cluster.node_of(RankId{rank_of(slot)}));
    }
    copies.rank += std::ssize(ranks) * index.weight(set);
    copies.node += std::ssize(nodes) * index.weight(set);
  }
  return copies;
}

// The tokens that visit a group and are served for `expert` by another group that serves nothing
// else of them.
std::int64_t recounted_gain(const SetIndex& index, const ReplicaState& state, std::int32_t expert,
                            std::int32_t group, const std::function<std::int32_t(int)>& group_of) {
  std::int64_t gain = 0;
  for (std::int64_t set = 0; set < index.num_sets(); ++set) {
    std::multiset<std::int32_t> visited;
    std::int32_t own = -1;
    for (std::size_t i = 0; i < index.experts(set).size(); ++i) {
      visited.insert(group_of(state.ranks_of(set)[i]));
      if (index.experts(set)[i] == expert) own = group_of(state.ranks_of(set)[i]);
    }
    const bool is_alone = own >= 0 && own != group && visited.count(own) == 1;
    if (is_alone && visited.contains(group)) gain += index.weight(set);
  }
  return gain;
}

void expect_recounted(const SetIndex& index, const Cluster& cluster, const ReplicaState& state) {
  const ServedTables& tables = state.tables();
  const auto stays = [](std::int32_t slot) { return slot / kSlotsPerRank; };
  const auto now = recounted(index, state, cluster, stays);
  for (std::int32_t a = 0; a < kNumSlots; ++a) {
    for (std::int32_t b = 0; b < kNumSlots; ++b) {
      if (stays(a) == stays(b)) continue;
      const auto swapped = recounted(index, state, cluster, [&](std::int32_t slot) {
        return stays(slot == a ? b : slot == b ? a : slot);
      });
      EXPECT_EQ(tables.swap_delta(a, b).rank, swapped.rank - now.rank) << a << " " << b;
      EXPECT_EQ(tables.swap_delta(a, b).node, swapped.node - now.node) << a << " " << b;
      const auto moved = recounted(index, state, cluster,
                                   [&](std::int32_t slot) { return stays(slot == a ? b : slot); });
      EXPECT_EQ(tables.move_delta(a, stays(b)).rank, moved.rank - now.rank) << a << " " << b;
      EXPECT_EQ(tables.move_delta(a, stays(b)).node, moved.node - now.node) << a << " " << b;
    }
  }
  const auto node_of = [&](int rank) { return cluster.node_of(RankId{rank}); };
  for (std::int32_t e = 0; e < index.num_experts(); ++e) {
    for (std::int32_t rank = 0; rank < kNumRanks; ++rank) {
      const auto gain = recounted_gain(index, state, e, rank, [](int own) { return own; });
      EXPECT_EQ(tables.gain(e, rank).rank, gain);
      if (cluster.num_nodes == 1) continue;
      EXPECT_EQ(tables.gain(e, rank).node,
                std::min(gain, recounted_gain(index, state, e, node_of(rank), node_of)));
    }
  }
  std::vector<std::int64_t> loads(kNumRanks);
  for (std::int32_t slot = 0; slot < kNumSlots; ++slot) {
    at(loads, stays(slot)) += tables.loads(slot)[0];
  }
  EXPECT_EQ(loads, std::vector(state.loads().begin(), state.loads().end()));
}

std::vector<Change> random_change(const ReplicaState& state, FastRandom& random) {
  const auto& slots = state.placement().slots;
  const std::int32_t rank = random.below(kNumRanks), slot = random.below(kSlotsPerRank);
  if (random.below(2) == 0) return {{rank, slot, random.below(state.placement().num_experts)}};
  const std::int32_t other = random.below(kNumRanks), place = random.below(kSlotsPerRank);
  if (other == rank) return {};
  return {{rank, slot, static_cast<std::int32_t>(slots(other, place))},
          {other, place, static_cast<std::int32_t>(slots(rank, slot))}};
}

TEST(ServedTables, EqualsRecountsWhileSlotsChange) {
  for (std::uint64_t seed = 0; seed < 6; ++seed) {
    SCOPED_TRACE(seed);
    FastRandom random(seed);
    const Cluster cluster = seed % 2 == 0 ? Cluster{.num_nodes = 2, .ranks_per_node = 2} : flat(4);
    const SetIndex index(random_sets(9, 4, 60, seed));
    ReplicaState state(index, cluster, placement_of(9, random), false);
    state.keep_tables();
    expect_recounted(index, cluster, state);
    for (int step = 0; step < 30; ++step) {
      const auto changes = random_change(state, random);
      if (changes.empty() || !state.is_allowed(changes)) continue;
      state.apply(changes);
      if (step % 3 == 0) state.undo();
      if (step % 10 == 0) state.settle_loads();
      expect_recounted(index, cluster, state);
    }
  }
}

double energy_of(const SearchEnergy& energy, const ReplicaState& state) {
  const double cost = energy.cost(state.rank_copies(), state.node_copies());
  return energy.value(cost, state.scenario_loads()) +
         energy.violation(cost, state.scenario_loads());
}

TEST(ChangeEstimate, OfASwapIsExactWithoutReplicasAndNeverTooLowInCopies) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    FastRandom random(seed);
    const bool has_replicas = seed % 2 == 0;
    const std::int32_t num_experts = has_replicas ? 9 : kNumSlots;
    const Cluster cluster{.num_nodes = 2, .ranks_per_node = 2};
    const SetIndex index(random_sets(num_experts, 4, 100, seed));
    ReplicaState state(index, cluster, placement_of(num_experts, random), false);
    state.keep_tables();
    ChangeEstimate estimate(state);
    SearchEnergy energy{.rank_cost = 1, .node_cost = 7, .mean_load = 100};
    if (!has_replicas) energy.max_load = 95, energy.max_cost = 900;
    int num_tried = 0;
    for (int step = 0; step < 60; ++step) {
      const std::int32_t a = random.below(kNumSlots), b = random.below(kNumSlots);
      const auto slots = state.placement().slots.all();
      const std::array changes{
          Change{a / kSlotsPerRank, a % kSlotsPerRank, std::int32_t(slots[std::size_t(b)])},
          Change{b / kSlotsPerRank, b % kSlotsPerRank, std::int32_t(slots[std::size_t(a)])}};
      if (a / kSlotsPerRank == b / kSlotsPerRank || !state.is_allowed(changes)) continue;
      const double estimated = estimate.of_swap(energy, state.scenario_loads(), a, b);
      const double before = energy_of(energy, state);
      state.apply(changes);
      const double change = energy_of(energy, state) - before;
      if (has_replicas) {
        EXPECT_LE(change, estimated + 1e-6);
      } else {
        EXPECT_NEAR(change, estimated, 1e-6);  // sums of 10^5 in double
      }
      ++num_tried;
    }
    EXPECT_GT(num_tried, 10);
  }
}

// Rank 0 holds 0 and 1, rank 1 holds 2 and 3, rank 2 holds 4 and 0.
TEST(ChangeEstimate, OfAReplicaKnowsWhoServesItsTokensAndWhatItWins) {
  TokenSets sets{.num_experts = 5, .num_tokens = 18, .experts = {3, 2}, .multiplicity = {10, 5, 3}};
  std::ranges::copy(
      std::array{ExpertId{0}, ExpertId{1}, ExpertId{3}, ExpertId{4}, ExpertId{2}, ExpertId{4}},
      sets.experts.all().begin());
  Placement placement{.num_experts = 5, .slots = {3, 2}};
  std::ranges::copy(
      std::array{ExpertId{0}, ExpertId{1}, ExpertId{2}, ExpertId{3}, ExpertId{4}, ExpertId{0}},
      placement.slots.all().begin());
  const SetIndex index(sets);
  ReplicaState state(index, flat(3), placement, false);
  state.keep_tables();
  ChangeEstimate estimate(state);
  SearchEnergy energy{.mean_load = 12};
  // Expert 3 beside 4: five tokens need no second rank. Nobody needs expert 0 there.
  EXPECT_EQ(estimate.of_change(energy, state.loads(), 5, 3), -5);
  // Rank 2 instead of 0 serves expert 0 to ten tokens that stay on rank 0 for expert 1.
  EXPECT_EQ(estimate.of_change(energy, state.loads(), 0, 3), 10);
  // Rank 2 would have 8 + 5 choices, which are 3 above the bound, at 10 for each.
  energy.max_load = 20, energy.load_penalty = 10;
  EXPECT_EQ(estimate.of_change(energy, state.loads(), 5, 3), -5);
  energy.max_load = 10;
  EXPECT_EQ(estimate.of_change(energy, state.loads(), 5, 3), -5 + 30);
  // 3 choices more than the largest load, of which one mean load counts 24.
  energy.max_load = 1e9, energy.imbalance_scale = 24;
  const std::vector<std::int64_t> even{10, 10, 10};
  EXPECT_EQ(estimate.of_change(energy, even, 5, 3), -5 + 5 * 24 / 12.0);
}

}  // namespace
}  // namespace c2r
