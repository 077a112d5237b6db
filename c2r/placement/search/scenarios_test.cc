// Tests of searches whose loads are to be even in several scenarios, against recounting.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "c2r/core/testing.h"
#include "c2r/placement/optimize.h"
#include "c2r/placement/search/fast_random.h"
#include "c2r/placement/search/optimize_testing_internal.h"
#include "c2r/placement/search/replicas/replica_state.h"
#include "c2r/placement/search/set_index.h"

namespace c2r {
namespace {

// The tokens of a set are in one scenario, by the sum of its experts: so scenarios have other
// loads.
TokenSets sets_in_scenarios(std::int32_t num_experts, std::int32_t num_scenarios,
                            std::uint64_t seed) {
  TokenSets sets = random_sets(num_experts, 3, 600, seed);
  sets.multiplicity_in = {sets.num_sets(), num_scenarios};
  for (std::int64_t set = 0; set < sets.num_sets(); ++set) {
    std::int32_t sum = 0;
    for (const ExpertId e : sets.experts.row(set)) sum += e == kNoExpert ? 0 : std::int32_t(e);
    sets.multiplicity_in(set, sum % num_scenarios) = at(sets.multiplicity, set);
  }
  return sets;
}

// The definition, without replicas: the busiest rank of each scenario.
double worst_imbalance(const TokenSets& sets, const Placement& placement) {
  const auto ranks = rank_of(placement);
  double worst = 0;
  for (std::int64_t scenario = 0; scenario < sets.multiplicity_in.cols(); ++scenario) {
    std::vector<double> loads(std::size_t(placement.ep_size()));
    for (std::int64_t set = 0; set < sets.num_sets(); ++set) {
      for (const ExpertId e : sets.experts.row(set)) {
        if (e != kNoExpert) {
          at(loads, at(ranks, e)) += double(sets.multiplicity_in(set, scenario));
        }
      }
    }
    const double mean = std::accumulate(loads.begin(), loads.end(), 0.0) / double(loads.size());
    worst = std::max(worst, std::ranges::max(loads) / mean);
  }
  return worst;
}

TEST(Scenarios, WeighAsMuchAsAllTokens) {
  const TokenSets sets = sets_in_scenarios(12, 3, 1);
  const SetIndex index(sets);
  ASSERT_EQ(index.num_scenarios(), 3);
  for (std::size_t scenario = 0; scenario < 3; ++scenario) {
    std::int64_t total = 0, of_sets = 0;
    for (std::int32_t e = 0; e < 12; ++e) total += index.scenario_loads(e)[scenario];
    for (std::int64_t set = 0; set < index.num_sets(); ++set) {
      of_sets += index.scenario_weights(set)[scenario] * std::ssize(index.experts(set));
    }
    EXPECT_EQ(total, of_sets);
    EXPECT_NEAR(double(total), double(index.num_choices()), 12);
  }
  TokenSets one = sets;
  one.multiplicity_in = {};
  const SetIndex single(one);
  EXPECT_EQ(single.num_scenarios(), 1);
  EXPECT_EQ(single.scenario_loads(5)[0], single.load(5));
  EXPECT_EQ(single.scenario_weights(7)[0], single.weight(7));
}

TEST(Scenarios, AreBoundedByTheSearchWithoutReplicas) {
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    SCOPED_TRACE(seed);
    const TokenSets sets = sets_in_scenarios(16, 4, seed);
    TokenSets one = sets;
    one.multiplicity_in = {};
    const Cluster cluster = seed % 2 == 0 ? flat(4) : Cluster{.num_nodes = 2, .ranks_per_node = 2};
    const PlacementObjective objective{.max_imbalance = 1.25};
    const auto apart = optimize_placement(sets, cluster, objective, {.effort = 0.2});
    const auto together = optimize_placement(one, cluster, objective, {.effort = 0.2});
    EXPECT_NEAR(apart.imbalance, worst_imbalance(sets, apart.placement), 0.03);
    EXPECT_LT(apart.imbalance, worst_imbalance(sets, together.placement));
    if (apart.meets_bounds) {
      EXPECT_GE(apart.copy_cost, together.copy_cost - 1e-9);
    }
    EXPECT_FALSE(apart.is_proved_optimal) << "columns know no scenarios";
    const auto even =
        optimize_placement(sets, cluster, {.goal = Goal::kImbalance}, {.effort = 0.2});
    EXPECT_LE(even.imbalance, apart.imbalance + 0.01);
  }
}

TEST(Scenarios, LoadsWithReplicasAreTrackedAndTakenBack) {
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    SCOPED_TRACE(seed);
    FastRandom random(seed);
    const TokenSets sets = sets_in_scenarios(8, 3, seed);
    const SetIndex index(sets);
    const auto start = optimize_placement(
        sets, flat(4), {}, {.seed = seed, .effort = 1e-4, .redundant_slots_per_rank = 1});
    ReplicaState state(index, flat(4), start.placement, false);
    const auto recounted = [&] {
      std::vector<std::int64_t> loads(3 * 4);
      for (std::int64_t set = 0; set < index.num_sets(); ++set) {
        for (const auto rank : state.ranks_of(set)) {
          for (std::size_t s = 0; s < 3; ++s) loads[s * 4 + rank] += index.scenario_weights(set)[s];
        }
      }
      return loads;
    };
    const auto tracked = [&] {
      return std::vector(state.scenario_loads().begin(), state.scenario_loads().end());
    };
    EXPECT_EQ(tracked(), recounted());
    for (int step = 0; step < 50; ++step) {
      const std::vector<ReplicaState::Change> change = {
          {random.below(4), random.below(3), random.below(8)}};
      if (!state.is_allowed(change)) continue;
      const auto before = tracked();
      state.apply(change);
      EXPECT_EQ(tracked(), recounted());
      if (step % 3 != 0) continue;
      state.undo();
      EXPECT_EQ(tracked(), before);
    }
    state.settle_loads();
    EXPECT_EQ(tracked(), recounted());
  }
}

TEST(Scenarios, MustAddUpAndHaveChoices) {
  const auto error_after = [](auto change) {
    TokenSets sets = sets_in_scenarios(8, 2, 1);
    change(sets);
    return testing::error_of([&] { check_token_sets(sets); });
  };
  EXPECT_EQ(error_after([](TokenSets&) {}), "no error");
  EXPECT_EQ(error_after([](TokenSets& sets) { sets.multiplicity_in(0, 1) += 1; }),
            fmt::format("token set 0 has the multiplicity {}, but {} in all scenarios",
                        sets_in_scenarios(8, 2, 1).multiplicity[0],
                        sets_in_scenarios(8, 2, 1).multiplicity[0] + 1));
  EXPECT_EQ(error_after([](TokenSets& sets) {
              for (std::int64_t set = 0; set < sets.num_sets(); ++set) {
                sets.multiplicity_in(set, 0) = sets.multiplicity[std::size_t(set)];
                sets.multiplicity_in(set, 1) = 0;
              }
            }),
            "no token of scenario 1 chose an expert");
  EXPECT_EQ(error_after([](TokenSets& sets) {
              sets.multiplicity_in = {1, 2};
            }),
            fmt::format("multiplicities by scenario are of 1 token sets, but there are {}",
                        sets_in_scenarios(8, 2, 1).num_sets()));
}

}  // namespace
}  // namespace c2r
