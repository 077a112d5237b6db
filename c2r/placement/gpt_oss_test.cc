// Tests that the optimizer reaches on real routing what it is known to reach.
#include <gtest/gtest.h>

#include <filesystem>
#include <iterator>
#include <numeric>
#include <span>
#include <utility>

#include "c2r/core/at.h"
#include "c2r/core/testing.h"
#include "c2r/import/import.h"
#include "c2r/placement/optimize.h"
#include "c2r/trace/sequence_split.h"

namespace c2r {
namespace {

using testing::real_data;

#ifdef C2R_SANITIZED
constexpr bool kIsSlow = true;  // some ten times: three layers of 24, with their own bars
#else
constexpr bool kIsSlow = false;
#endif

struct Reached {
  double copies = 0, imbalance = 0,
         copy_cost = 0;  // means over layers, on tokens that were not fitted
};

struct Case {
  std::int32_t ep_size = 0;
  std::optional<double> max_imbalance;
  Reached all_layers, layers_0_8_16;  // no more than these
};

// Spectral grouping, the best published baseline, has 2.136 copies at imbalance 1.471 on 4 ranks
// and 2.769 at 1.828 on 8. For all layers the bars are those of an earlier search; for three they
// are 0.1 % above the proved optima at 8 ranks and 0.4 % above the search at 4. A search with 3 %
// of the effort misses them.
constexpr Case kCases[] = {
    {4, {}, {1.984, 1.70}, {2.049, 1.44}},
    {8, 1.05, {3.021, 1.13}, {2.888, 1.11}},
    {4, 1.05, {2.268, 1.06}, {2.180, 1.07}},
    {8, {}, {2.566, 2.05}, {2.594, 1.78}},
};
constexpr std::size_t kNumCases = kIsSlow ? 2 : std::size(kCases);

Reached fit_and_measure(const Trace& trace, const Cluster& cluster,
                        const PlacementObjective& objective, std::int32_t redundant_slots_per_rank,
                        const std::vector<std::int64_t>& layers) {
  const auto sets = [&](std::int64_t layer, SequencePart part) {
    return collect_token_sets(trace, layer, ranges_of(trace, part));
  };
  NoProgress progress;
  const auto fitted = optimize_placements(
      std::ssize(layers), [&](std::int64_t i) { return sets(at(layers, i), SequencePart::kEven); },
      cluster, objective, {.redundant_slots_per_rank = redundant_slots_per_rank, .num_threads = 2},
      progress);
  Reached mean;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    EXPECT_TRUE(fitted[i].meets_bounds) << "layer " << layers[i];
    const auto measured = measure_placement(sets(layers[i], SequencePart::kOdd), cluster, objective,
                                            fitted[i].placement);
    mean.copies += measured.copies_per_token / double(layers.size());
    mean.imbalance += measured.imbalance / double(layers.size());
    mean.copy_cost += measured.copy_cost / double(layers.size());
  }
  return mean;
}

Trace import_gpt_oss(const std::filesystem::path& ids) {
  const auto path = testing::temporary_path("trace.safetensors");
  import_file({.format = "npy",
               .inputs = {ids},
               .output = path,
               .model = "gpt-oss-20b",
               .num_experts = 32,
               .sequences = real_data("traces/gpt-oss-20b/sequences.csv")});
  return Trace(path);
}

TEST(OptimizeOnRealData, KeepsWhatItReachesOnGptOss) {
  const auto ids = real_data("traces/gpt-oss-20b/expert_ids_u8.npy.xz");
  C2R_SKIP_WITHOUT(ids);
  const Trace trace = import_gpt_oss(ids);
  std::vector<std::int64_t> layers = {0, 8, 16};
  if (!kIsSlow) {
    layers.resize(24);
    std::iota(layers.begin(), layers.end(), 0);
  }
  for (const Case& problem : std::span(kCases).first(kNumCases)) {
    SCOPED_TRACE(::testing::Message()
                 << problem.ep_size << " ranks, bound " << problem.max_imbalance.value_or(0));
    const Reached bar = kIsSlow ? problem.layers_0_8_16 : problem.all_layers;
    const Reached reached = fit_and_measure(trace, {.ranks_per_node = problem.ep_size},
                                            {.max_imbalance = problem.max_imbalance}, 0, layers);
    EXPECT_LE(reached.copies, bar.copies);
    EXPECT_LE(reached.imbalance, bar.imbalance);
  }
}

// Layers 0, 8 and 16 with one redundant slot a rank, within 1.1. On 8 ranks, the search has a copy
// cost of 2.328 at 1.152, and 2.499 without the annealing of replicas. On 2 nodes of 4 ranks, where
// a copy between nodes weighs most, it has 12.866 at 1.097.
TEST(OptimizeOnRealData, KeepsWhatReplicasReachOnGptOss) {
  const auto ids = real_data("traces/gpt-oss-20b/expert_ids_u8.npy.xz");
  C2R_SKIP_WITHOUT(ids);
  const Trace trace = import_gpt_oss(ids);
  const std::pair<Cluster, Reached> cases[] = {
      {{.ranks_per_node = 8}, {.imbalance = 1.17, .copy_cost = 2.34}},
      {{.num_nodes = 2, .ranks_per_node = 4}, {.imbalance = 1.15, .copy_cost = 12.97}},
  };
  for (const auto& [cluster, bar] : cases) {
    SCOPED_TRACE(::testing::Message() << cluster.num_nodes << " nodes");
    PlacementObjective objective = objective_for(cluster);
    objective.max_imbalance = 1.1;
    const Reached reached = fit_and_measure(trace, cluster, objective, 1, {0, 8, 16});
    EXPECT_LE(reached.copy_cost, bar.copy_cost);
    EXPECT_LE(reached.imbalance, bar.imbalance);
  }
}

// Layers 0, 8 and 16 without redundant slots on 2 nodes of 4 ranks, within 1.1. The copy cost, in
// which a copy between nodes weighs most, is 15.84 at imbalance 1.098. Without the partition that
// places experts on nodes first it is 16.03, unless all the work goes to the other partition.
TEST(OptimizeOnRealData, KeepsWhatNodesFirstReachesOnGptOss) {
  const auto ids = real_data("traces/gpt-oss-20b/expert_ids_u8.npy.xz");
  C2R_SKIP_WITHOUT(ids);
  const Trace trace = import_gpt_oss(ids);
  const Cluster cluster = {.num_nodes = 2, .ranks_per_node = 4};
  PlacementObjective objective = objective_for(cluster);
  objective.max_imbalance = 1.1;
  const Reached reached = fit_and_measure(trace, cluster, objective, 0, {0, 8, 16});
  EXPECT_LE(reached.copy_cost, 15.93);
  EXPECT_LE(reached.imbalance, 1.13);
}

}  // namespace
}  // namespace c2r
