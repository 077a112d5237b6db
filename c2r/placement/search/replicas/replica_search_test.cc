// Tests that costs and loads tracked by the replica search equal recounted ones after every
// move.
#include "c2r/placement/search/replicas/replica_search.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <set>
#include <utility>
#include <vector>

#include "c2r/placement/optimize.h"
#include "c2r/placement/search/fast_random.h"
#include "c2r/placement/search/optimize_problems_internal.h"
#include "c2r/placement/search/optimize_testing_internal.h"

namespace c2r {
namespace {

TEST(ReplicaState, TracksWhatRecountingGivesAndTakesChangesBack) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    FastRandom random(seed);
    const Cluster cluster = seed % 2 == 0 ? Cluster{.num_nodes = 2, .ranks_per_node = 2}
                                          : Cluster{.num_nodes = 1, .ranks_per_node = 4};
    const TokenSets sets = random_sets(8, 4, 100, seed);
    const SetIndex index(sets);
    const auto start = optimize_placement(
        sets, cluster, {}, {.seed = seed, .effort = 1e-4, .redundant_slots_per_rank = 1});
    ReplicaState state(index, cluster, start.placement, false);
    for (int step = 0; step < 100; ++step) {
      using Change = ReplicaState::Change;
      const Placement& now = state.placement();
      std::vector<Change> changes = {{random.below(4), random.below(3), random.below(8)}};
      if (step % 2 == 0) {
        const Change other{random.below(4), random.below(3),
                           std::int32_t(now.slots(changes[0].rank, changes[0].slot))};
        if (other.rank == changes[0].rank) continue;
        changes[0].expert = std::int32_t(now.slots(other.rank, other.slot));
        changes.push_back(other);
      }
      if (!state.is_allowed(changes)) continue;
      const Placement before = now;
      const std::vector<std::int64_t> loads(state.loads().begin(), state.loads().end());
      const std::int64_t copies = state.rank_copies(), node_copies = state.node_copies();
      const auto foreseen = state.copies_after(changes);
      EXPECT_EQ(state.placement(), before);
      state.apply(changes);
      ASSERT_TRUE(foreseen);
      EXPECT_EQ(foreseen->rank, state.rank_copies());
      EXPECT_EQ(foreseen->node, state.node_copies());
      ASSERT_NO_THROW(check_placement(state.placement()));
      EXPECT_EQ(state.rank_copies(), fewest_copies(sets, state.placement()));
      EXPECT_EQ(state.node_copies(),
                ReplicaState(index, cluster, state.placement(), false).node_copies());
      EXPECT_EQ(std::accumulate(state.loads().begin(), state.loads().end(), std::int64_t{0}),
                index.num_choices());
      if (step % 3 != 0) continue;
      state.undo();
      EXPECT_EQ(state.placement().slots.row(changes[0].rank)[0],
                before.slots.row(changes[0].rank)[0]);
      EXPECT_EQ(state.placement(), before);
      EXPECT_EQ(state.rank_copies(), copies);
      EXPECT_EQ(state.node_copies(), node_copies);
      EXPECT_EQ(std::vector(state.loads().begin(), state.loads().end()), loads);
    }
  }
}

TEST(ReplicaState, ServesMoreRanksThanItCanForesee) {
  const Cluster cluster{.num_nodes = 13, .ranks_per_node = 5};
  const TokenSets sets = random_sets(80, 4, 300, 1);
  const auto result = optimize_placement(sets, cluster, {.max_imbalance = 3},
                                         {.effort = 0.05, .redundant_slots_per_rank = 1});
  const SetIndex index(sets);
  ReplicaState state(index, cluster, result.placement, false);
  EXPECT_FALSE(state.copies_after(std::array{ReplicaState::Change{}}));
  std::int64_t ranks = 0, nodes = 0;
  for (std::int64_t set = 0; set < index.num_sets(); ++set) {
    std::set<int> visited, visited_nodes;
    for (const auto rank : state.ranks_of(set))
      visited.insert(rank), visited_nodes.insert(rank / 5);
    ranks += std::ssize(visited) * index.weight(set);
    nodes += std::ssize(visited_nodes) * index.weight(set);
  }
  EXPECT_EQ(state.rank_copies(), ranks);
  EXPECT_EQ(state.node_copies(), nodes);
}

// Where slots are annealed for tokens that stay, and tokens are served anew afterwards.
TEST(SearchReplicas, MeetsTheBoundWhereAnnealingReplicasIsTooSlow) {
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    SCOPED_TRACE(seed);
    const TokenSets sets = clustered_token_sets({.num_experts = 64,
                                                 .top_k = 6,
                                                 .num_tokens = 1000,
                                                 .num_topics = 8,
                                                 .skew = 1,
                                                 .seed = seed});
    const auto result =
        optimize_placement(sets, {.num_nodes = 4, .ranks_per_node = 4}, {.max_imbalance = 1.1},
                           {.effort = 3e-3, .redundant_slots_per_rank = 1});
    EXPECT_TRUE(result.meets_bounds) << result.imbalance;
  }
}

}  // namespace
}  // namespace c2r
