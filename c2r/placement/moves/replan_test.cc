// Tests of replanning with few moves, against trying every exchange with the definition.
#include "c2r/placement/moves/replan.h"

#include <gtest/gtest.h>

#include "c2r/core/testing.h"
#include "c2r/placement/moves/relabel.h"
#include "c2r/placement/search/optimize_testing_internal.h"
#include "c2r/placement/testing_internal.h"

namespace c2r {
namespace {

using testing::error_of;

PlacementObjective weighted(const Cluster& cluster, double weight) {
  PlacementObjective objective = objective_for(cluster);
  objective.imbalance_weight = weight;
  return objective;
}

// The objective of all tokens, counted anew, with the whole imbalance instead of its excess over 1.
double counted_energy(const TokenSets& sets, const Cluster& cluster,
                      const PlacementObjective& objective, const Placement& placement) {
  const double value = measure_placement(sets, cluster, objective, placement).value;
  return (value + objective.imbalance_weight) * double(sets.num_tokens);
}

// The least energy after one exchange of two experts of different ranks.
double best_of_all_exchanges(const TokenSets& sets, const Cluster& cluster,
                             const PlacementObjective& objective, const Placement& running) {
  double best = counted_energy(sets, cluster, objective, running);
  const std::int64_t num_slots = std::ssize(running.slots.all());
  for (std::int64_t a = 0; a < num_slots; ++a) {
    for (std::int64_t b = a + 1; b < num_slots; ++b) {
      if (a / running.slots_per_rank() == b / running.slots_per_rank()) continue;
      Placement exchanged = running;
      std::swap(exchanged.slots.all()[std::size_t(a)], exchanged.slots.all()[std::size_t(b)]);
      best = std::min(best, counted_energy(sets, cluster, objective, exchanged));
    }
  }
  return best;
}

TEST(Replan, EachStepIsTheBestOfAllExchanges) {
  for (unsigned seed = 0; seed < 12; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 rng(seed);
    const Cluster cluster = seed % 2 == 0 ? flat(3) : Cluster{.num_nodes = 2, .ranks_per_node = 2};
    const auto sets = random_sets(12, 3, 200, seed);
    const auto objective = weighted(cluster, 0.5 * (seed % 3));
    const Placement running = testing::random_placement(12, cluster.ep_size(), 0, rng);
    const RunningLayer layer(sets, cluster, objective, running);
    EXPECT_NEAR(layer.energy(), counted_energy(sets, cluster, objective, running), 1e-6);
    const auto steps = layer.steps(100);
    if (steps.empty()) continue;
    EXPECT_NEAR(steps[0].energy, best_of_all_exchanges(sets, cluster, objective, running), 1e-6);
    EXPECT_EQ(steps[0].num_moved, 2);
  }
}

TEST(Replan, KeepsWithinTheMovesAndNeverCostsMore) {
  for (unsigned seed = 0; seed < 10; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 rng(seed);
    const Cluster cluster = flat(4);
    const auto objective = weighted(cluster, 1);
    const int redundant = seed % 2 == 0 ? 0 : 2;
    std::vector<TokenSets> sets;
    std::vector<RunningLayer> layers;
    for (unsigned l = 0; l < 3; ++l) {
      sets.push_back(random_sets(16, 3, 300, 10 * seed + l));
      layers.emplace_back(sets.back(), cluster, objective,
                          testing::random_placement(16, 4, redundant, rng));
    }
    double energy_before = 1e300;
    for (const std::int64_t max_moves : {0, 2, 6, 1000}) {
      const auto placements = replan(layers, max_moves, 2);
      std::int64_t moved = 0;
      double energy = 0, running = 0;
      for (std::size_t l = 0; l < layers.size(); ++l) {
        check_placement(placements[l]);
        moved += num_moved_experts(layers[l].running(), placements[l]);
        energy += counted_energy(sets[l], cluster, objective, placements[l]);
        running += counted_energy(sets[l], cluster, objective, layers[l].running());
      }
      EXPECT_LE(moved, max_moves);
      if (redundant > 0) continue;  // tokens are served anew, so loads may differ
      EXPECT_LE(energy, running + 1e-6);
      EXPECT_LE(energy, energy_before + 1e-6) << "more moves cannot be worse";
      energy_before = energy;
    }
    EXPECT_EQ(replan(layers, 6, 1), replan(layers, 6, 2));
  }
}

TEST(Replan, KeepsExpertsOnTheirNodeWhereItMust) {
  const Cluster cluster{.num_nodes = 2, .ranks_per_node = 2};
  const auto sets = random_sets(8, 2, 400, 3);
  std::mt19937_64 rng(3);
  const Placement running = testing::random_placement(8, 4, 0, rng);
  std::vector<RunningLayer> layers;
  layers.emplace_back(sets, cluster, weighted(cluster, 1), running, /*is_fixed_to_nodes=*/true);
  const auto before = rank_of(running), after = rank_of(replan(layers, 100, 1)[0]);
  for (std::size_t e = 0; e < 8; ++e) {
    EXPECT_EQ(cluster.node_of(before[e]), cluster.node_of(after[e]));
  }
}

// On evenly spread copies and one node the approximation is the time up to a constant factor.
TEST(Replan, TheLinearObjectiveIsTheTimeOfEvenLinks) {
  Cluster cluster = flat(2);
  cluster.device_flop_per_s = 1e12;
  cluster.intra_node = {.bandwidth_bytes_per_s = 1e9, .latency_s = 0};
  PlacementObjective time{
      .goal = Goal::kTime,
      .layer_time = LayerTimeOptions{.format = {.hidden = 100}, .flop_per_choice = 6e6}};
  TokenSets sets{.num_experts = 4, .num_tokens = 4, .experts = {2, 2}, .multiplicity = {2, 2}};
  sets.experts(0, 0) = ExpertId{0}, sets.experts(0, 1) = ExpertId{1};
  sets.experts(1, 0) = ExpertId{2}, sets.experts(1, 1) = ExpertId{3};
  const auto linear = linear_objective(time, cluster, 2);
  const Placement together = testing::make_placement(4, {{0, 1}, {2, 3}});
  const Placement apart = testing::make_placement(4, {{0, 2}, {1, 3}});
  const auto ratio = [&](const Placement& placement) {
    const double copies = measure_placement(sets, cluster, linear, placement).value;
    return measure_placement(sets, cluster, time, placement).value /
           (copies + linear.imbalance_weight);
  };
  EXPECT_NEAR(ratio(together) / ratio(apart), 1, 1e-12);
  EXPECT_EQ(linear_objective(linear, cluster, 2).imbalance_weight, linear.imbalance_weight);
}

TEST(Replan, RefusesPlacementsOfOtherModelsAndTheGoalTime) {
  const auto sets = random_sets(8, 2, 10, 1);
  const Placement running = testing::make_placement(4, {{0, 1}, {2, 3}});
  EXPECT_EQ(
      error_of([&] { RunningLayer(sets, flat(2), objective_for(flat(2)), running); }),
      "the running placement is of 4 experts on 2 ranks, but the tokens are of 8 experts on a "
      "cluster of 2 ranks");
  PlacementObjective time = objective_for(flat(2));
  time.goal = Goal::kTime;
  const auto four = random_sets(4, 2, 10, 1);
  EXPECT_EQ(error_of([&] { RunningLayer(four, flat(2), time, running); }),
            "a running layer needs an objective of copies or imbalance: linear_objective()");
  EXPECT_EQ(error_of([&] { replan({}, -1, 1); }), "-1 experts may move, but must be at least 0");
}

}  // namespace
}  // namespace c2r
