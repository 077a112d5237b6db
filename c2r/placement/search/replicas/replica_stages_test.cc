// Tests of annealing a placement with replicas in stages.
#include "c2r/placement/search/replicas/replica_stages.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "c2r/placement/optimize.h"
#include "c2r/placement/search/optimize_testing_internal.h"

namespace c2r {
namespace {

// Contiguous experts, and in the last slot of each rank the first expert of the next.
Placement contiguous_with_neighbours(std::int32_t num_experts, std::int32_t ep_size) {
  const std::int32_t base = num_experts / ep_size;
  Placement placement{.num_experts = num_experts, .slots = {ep_size, base + 1}};
  for (std::int32_t rank = 0; rank < ep_size; ++rank) {
    for (std::int32_t slot = 0; slot <= base; ++slot) {
      placement.slots(rank, slot) = ExpertId{(rank * base + slot) % num_experts};
    }
  }
  return placement;
}

TEST(AnnealInStages, ComesNearTheBestOfManyLongSearchesWithinTheBound) {
  double one = 0, best = 0;
  for (std::uint64_t seed = 0; seed < 3; ++seed) {
    const TokenSets sets = clustered_token_sets(
        {.num_experts = 16, .top_k = 4, .num_tokens = 2000, .num_topics = 4, .seed = seed});
    const SetIndex index(sets);
    const double mean_load = static_cast<double>(index.num_choices()) / 4;
    const SearchEnergy energy{.mean_load = mean_load, .max_load = 1.1 * mean_load};
    const auto annealed = [&](std::int64_t work, std::uint64_t search_seed) {
      const ReplicaState state =
          anneal_in_stages(index, flat(4), energy, false, {.work = work, .seed = search_seed}, {},
                           ReplicaState(index, flat(4), contiguous_with_neighbours(16, 4), false));
      EXPECT_EQ(energy.violation(0, state.loads()), 0);
      EXPECT_EQ(state.rank_copies(), fewest_copies(sets, state.placement()));
      return static_cast<double>(state.rank_copies());
    };
    one += annealed(1'000'000, 1);
    double least = INFINITY;
    for (std::uint64_t search_seed = 2; search_seed < 6; ++search_seed) {
      least = std::min(least, annealed(5'000'000, search_seed));
    }
    best += least;
  }
  EXPECT_LE(one, 1.02 * best);
}

TEST(AnnealInStages, DependsOnTheSeedAloneAndStopsWhenAsked) {
  const SetIndex index(random_sets(16, 4, 3000, 5));
  const ReplicaState start(index, flat(4), contiguous_with_neighbours(16, 4), false);
  const auto annealed = [&](const SearchLimits& limits) {
    return anneal_in_stages(index, flat(4), {}, false, {.work = 1'000'000, .seed = 7}, limits,
                            start);
  };
  const ReplicaState first = annealed({});
  EXPECT_LT(first.rank_copies(), start.rank_copies());
  EXPECT_EQ(annealed({}).placement(), first.placement());
  const std::atomic<bool> stop{true};
  EXPECT_EQ(annealed({.stop = &stop}).placement(), start.placement());
}

TEST(AnnealInStages, ChangesMovableSlotsAndFewOfTheOthersForReplicas) {
  const SetIndex index(random_sets(16, 4, 3000, 5));
  const ReplicaState start(index, flat(4), contiguous_with_neighbours(16, 4), false);
  const std::vector<std::int32_t> movable{0, 1, 6, 7, 12, 17};
  const ReplicaState found = anneal_in_stages(
      index, flat(4), {}, false, {.work = 1'000'000, .seed = 7, .movable = movable}, {}, start);
  EXPECT_LT(found.rank_copies(), start.rank_copies());
  EXPECT_EQ(found.rank_copies(), fewest_copies(random_sets(16, 4, 3000, 5), found.placement()));
  int num_moved = 0, num_others = 0;
  for (std::int32_t slot = 0; slot < 20; ++slot) {
    if (start.placement().slots(slot / 5, slot % 5) == found.placement().slots(slot / 5, slot % 5))
      continue;
    const bool is_movable = std::ranges::find(movable, slot) != movable.end();
    ++(is_movable ? num_moved : num_others);
  }
  EXPECT_LE(num_others, 4) << "only slots of replicas are polished";
  EXPECT_GT(num_moved, 0);
}

}  // namespace
}  // namespace c2r
