// Tests of the search for slots on problems whose best placement is known.
#include "c2r/placement/search/replicas/slot_search.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "c2r/core/at.h"
#include "c2r/core/testing.h"
#include "c2r/placement/search/optimize_testing_internal.h"

namespace c2r {
namespace {

// Experts 0 and 3 have a replica on each of the first two nodes, expert 6 two on the last.
Placement with_replicas() {
  Placement placement{.num_experts = 9, .slots = {6, 2}};
  const int slots[6][2] = {{0, 1}, {2, 3}, {4, 0}, {3, 5}, {6, 7}, {8, 6}};
  for (int rank = 0; rank < 6; ++rank) {
    for (int slot = 0; slot < 2; ++slot) placement.slots(rank, slot) = ExpertId{slots[rank][slot]};
  }
  return placement;
}

std::multiset<ExpertId> experts_of(const Placement& placement) {
  const auto slots = placement.slots.all();
  return {slots.begin(), slots.end()};
}

TEST(AnnealSlots, LosesNoCopiesAndKeepsReplicasApart) {
  const Cluster cluster{.num_nodes = 3, .ranks_per_node = 2};
  const SearchEnergy energy{.rank_cost = 1, .node_cost = 4};
  int num_improved = 0;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    const TokenSets sets = random_sets(9, 3, 400, seed);
    const SetIndex index(sets);
    const ReplicaState before(index, cluster, with_replicas(), false);
    const PartitionEffort effort{.work = 100'000, .seed = seed};
    const Placement placement = anneal_slots(index, cluster, energy, false, effort, {}, before);
    ASSERT_NO_THROW(check_placement(placement));
    EXPECT_EQ(experts_of(placement), experts_of(with_replicas()));
    const ReplicaState after(index, cluster, placement, false);
    const double cost_before = energy.cost(before.rank_copies(), before.node_copies());
    const double cost_after = energy.cost(after.rank_copies(), after.node_copies());
    EXPECT_LE(cost_after, cost_before);
    num_improved += cost_after < cost_before;
    const auto hosts = ranks_of_experts(placement);
    for (const int e : {0, 3}) {
      EXPECT_NE(cluster.node_of(at(hosts, e)[0]), cluster.node_of(at(hosts, e)[1]));
    }
  }
  EXPECT_GE(num_improved, 18);
}

TEST(SetIndex, RefusesMoreSlotsThanItCanNumber) {
  const TokenSets sets{.num_experts = 65'537};
  EXPECT_EQ(testing::error_of([&] { SetIndex{sets}; }),
            "placements can be optimized up to 65536 experts or slots, not 65537");
}

TEST(AnnealSlots, KeepsEveryReplicaInItsNodeIfAsked) {
  const Cluster cluster{.num_nodes = 3, .ranks_per_node = 2};
  const TokenSets sets = random_sets(9, 3, 400, 1);
  const SetIndex index(sets);
  const ReplicaState before(index, cluster, with_replicas(), true);
  const Placement placement = anneal_slots(index, cluster, {}, true, {.work = 100'000}, {}, before);
  ASSERT_NO_THROW(check_placement(placement));
  for (std::int64_t node = 0; node < 3; ++node) {
    std::multiset<ExpertId> here, there;
    for (std::int64_t rank = 2 * node; rank < 2 * node + 2; ++rank) {
      for (const ExpertId e : placement.slots.row(rank)) here.insert(e);
      for (const ExpertId e : before.placement().slots.row(rank)) there.insert(e);
    }
    EXPECT_EQ(here, there) << "node " << node;
  }
}

}  // namespace
}  // namespace c2r
