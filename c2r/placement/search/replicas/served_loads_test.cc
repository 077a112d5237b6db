// Tests of a search that is judged by loads in another order of the tokens than its own.
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

double busier_imbalance(const SetIndex& index, const Placement& placement, double part) {
  const auto loads = loads_with_a_busier_rank(index, placement, part);
  return std::ranges::max(loads) * double(loads.size()) / double(index.num_choices());
}

TEST(ServedLoads, RelieveTheBusyRankAtFewerCopiesThanALowerBoundForAll) {
  constexpr double kBound = 1.1, kPart = 0.12;
  const Cluster cluster = flat(4);
  double served_copies = 0, lowered_copies = 0;
  int num_over = 0, num_met = 0;
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    SCOPED_TRACE(seed);
    const TokenSets sets = random_sets(16, 3, 2000, seed);
    const SetIndex index(sets);
    const OptimizeOptions options{.seed = seed, .effort = 0.2, .redundant_slots_per_rank = 1};
    const PlacementObjective objective{.max_imbalance = kBound};
    const auto own = optimize_placement(sets, cluster, objective, options);
    const auto judged =
        optimize_placement(sets, cluster, objective, options, [&](const Placement& placement) {
          return loads_with_a_busier_rank(index, placement, kPart);
        });
    ASSERT_NO_THROW(check_placement(judged.placement));
    EXPECT_DOUBLE_EQ(judged.imbalance, busier_imbalance(index, judged.placement, kPart));
    EXPECT_EQ(judged.meets_bounds, judged.imbalance <= kBound * (1 + 1e-9));
    num_over += busier_imbalance(index, own.placement, kPart) > kBound;
    num_met += judged.meets_bounds;
    served_copies += judged.copy_cost;
    lowered_copies +=
        optimize_placement(sets, cluster, {.max_imbalance = kBound - kPart}, options).copy_cost;
  }
  EXPECT_GE(num_over, 5) << "the case is not in this test";
  EXPECT_GE(num_met, 8);
  EXPECT_LT(served_copies, lowered_copies);
}

// Each round of an effort is judged and mended before the best is chosen.
TEST(ServedLoads, MoreEffortIsNeverWorse) {
  constexpr double kPart = 0.08;
  int num_better = 0;
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    SCOPED_TRACE(seed);
    const TokenSets sets = random_sets(12, 3, 300, seed);
    const SetIndex index(sets);
    Quality last{.violation = 1e9};
    for (const double effort : {1, 2, 5}) {
      const auto found = optimize_placement(
          sets, flat(4), {.max_imbalance = 1.04},
          {.seed = seed, .effort = effort, .redundant_slots_per_rank = 1},
          [&](const Placement& p) { return loads_with_a_busier_rank(index, p, kPart); });
      EXPECT_LE(found.quality(), last);
      num_better += effort > 1 && found.quality() < last;
      last = found.quality();
    }
  }
  EXPECT_GE(num_better, 1) << "effort never mattered";
}

TEST(ServedLoads, WithoutTimeToCountTheSearchJudgesByItsOwn) {
  const TokenSets sets = random_sets(12, 3, 300, 1);
  const OptimizeOptions options{.effort = 0.1, .redundant_slots_per_rank = 1};
  const PlacementObjective objective{.max_imbalance = 1.1};
  const auto own = optimize_placement(sets, flat(4), objective, options);
  const auto uncounted = optimize_placement(sets, flat(4), objective, options,
                                            [](const Placement&) { return std::vector<double>(); });
  EXPECT_EQ(uncounted.placement, own.placement);
  EXPECT_EQ(uncounted.imbalance, own.imbalance);
}

TEST(ServedLoads, RefuseWhatTheyCannotJudge) {
  const TokenSets sets = random_sets(8, 2, 200, 1);
  const auto error_with = [&](const PlacementObjective& asked, std::size_t num_loads) {
    return testing::error_of([&] {
      optimize_placement(sets, flat(4), asked, {.effort = 0.1, .redundant_slots_per_rank = 1},
                         [&](const Placement&) { return std::vector<double>(num_loads, 100); });
    });
  };
  const std::string unsuited =
      "loads in another order of the tokens are for few copies within a bound on imbalance, "
      "without scenarios";
  EXPECT_EQ(error_with({}, 4), unsuited);
  EXPECT_EQ(error_with({.max_imbalance = 1.1, .goal = Goal::kImbalance}, 4), unsuited);
  EXPECT_EQ(error_with({.max_imbalance = 1.1, .max_copy_cost = 3}, 4), unsuited);
  EXPECT_EQ(error_with({.max_imbalance = 1.1}, 3),
            "loads of 3 ranks were counted, but there are 4");
}

}  // namespace
}  // namespace c2r
