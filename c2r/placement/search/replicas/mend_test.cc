// Tests of mending: loads as another order of the tokens counts them are brought within the bound.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "c2r/core/testing.h"
#include "c2r/placement/optimize.h"
#include "c2r/placement/search/optimize_testing_internal.h"
#include "c2r/placement/search/replicas/replica_state.h"

namespace c2r {
namespace {

// The loads of the search, of which rank 0 gets a part more of the mean load, and the others less.
std::vector<double> loads_with_a_busier_rank(const SetIndex& index, const Placement& placement,
                                             double part) {
  const ReplicaState state(index, flat(placement.ep_size()), placement, false);
  std::vector<double> loads(state.loads().begin(), state.loads().end());
  const auto num_ranks = static_cast<double>(loads.size());
  const double more = part * static_cast<double>(index.num_choices()) / num_ranks;
  for (double& load : loads) load -= more / (num_ranks - 1);
  loads[0] += more + more / (num_ranks - 1);
  return loads;
}

TEST(MendPlacement, RelievesTheBusyRankAtFewerCopiesThanALowerBoundForAll) {
  constexpr double kBound = 1.1, kPart = 0.08;
  const Cluster cluster = flat(4);
  double mended_copies = 0, lowered_copies = 0;
  int num_over = 0, num_mended = 0;
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    SCOPED_TRACE(seed);
    const TokenSets sets = random_sets(16, 3, 2000, seed);
    const SetIndex index(sets);
    const auto served_imbalance = [&](const Placement& placement) {
      return std::ranges::max(loads_with_a_busier_rank(index, placement, kPart)) * 4 /
             double(index.num_choices());
    };
    const OptimizeOptions options{.seed = seed, .effort = 0.2, .redundant_slots_per_rank = 1};
    const PlacementObjective objective{.max_imbalance = kBound};
    const auto found = optimize_placement(sets, cluster, objective, options);
    int num_calls = 0;
    const auto mended =
        mend_placement(sets, cluster, objective, options, found.placement, [&](const Placement& p) {
          ++num_calls;
          return loads_with_a_busier_rank(index, p, kPart);
        });
    EXPECT_EQ(num_calls, 5);
    ASSERT_NO_THROW(check_placement(mended.placement));
    EXPECT_LE(served_imbalance(mended.placement),
              std::max(kBound, served_imbalance(found.placement)) + 1e-9);
    num_over += served_imbalance(found.placement) > kBound;
    num_mended += served_imbalance(mended.placement) <= kBound + 1e-9;
    mended_copies += mended.copy_cost;
    lowered_copies +=
        optimize_placement(sets, cluster, {.max_imbalance = kBound - kPart}, options).copy_cost;
  }
  EXPECT_GE(num_over, 5) << "the case is not in this test";
  EXPECT_GE(num_mended, 8);
  EXPECT_LT(mended_copies, lowered_copies);
}

TEST(MendPlacement, RefusesWhatItCannotJudge) {
  const TokenSets sets = random_sets(8, 2, 200, 1);
  const Cluster cluster = flat(4);
  const OptimizeOptions options{.effort = 0.1, .redundant_slots_per_rank = 1};
  const PlacementObjective objective{.max_imbalance = 1.1};
  const auto found = optimize_placement(sets, cluster, objective, options);
  const auto error_with = [&](const PlacementObjective& asked, std::size_t num_loads) {
    return testing::error_of([&] {
      mend_placement(sets, cluster, asked, options, found.placement,
                     [&](const Placement&) { return std::vector<double>(num_loads, 100); });
    });
  };
  const std::string unsuited =
      "mending is for few copies within a bound on imbalance, without scenarios";
  EXPECT_EQ(error_with({}, 4), unsuited);
  EXPECT_EQ(error_with({.max_imbalance = 1.1, .goal = Goal::kImbalance}, 4), unsuited);
  EXPECT_EQ(error_with(objective, 3), "loads of 3 ranks were counted, but there are 4");
}

}  // namespace
}  // namespace c2r
