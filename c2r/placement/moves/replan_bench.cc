// Replanning from warm state, for a model shaped like DeepSeek-V3's: what a runtime that follows
// its traffic would call. 58 layers of 256 experts, 8 ranks of 36 slots, a tenth of the slots may
// change.
#include <benchmark/benchmark.h>

#include "c2r/placement/moves/relabel.h"
#include "c2r/placement/moves/replan.h"
#include "c2r/placement/search/optimize_problems_internal.h"
#include "c2r/placement/testing_internal.h"

namespace c2r {
namespace {

constexpr std::int64_t kReplanLayers = 58;
constexpr std::int32_t kReplanExperts = 256, kReplanRanks = 8, kReplanSlots = 36;
constexpr std::int64_t kMaxMoves = kReplanLayers * kReplanRanks * kReplanSlots / 10;

constexpr Cluster kReplanCluster{.ranks_per_node = kReplanRanks};
constexpr std::uint64_t kDrawn = 3;

// Drawing tokens takes longer than everything else, so layers share token sets.
std::vector<TokenSets> drawn_sets() {
  std::vector<TokenSets> sets;
  for (std::uint64_t seed = 0; seed < kDrawn; ++seed) {
    sets.push_back(clustered_token_sets({.num_experts = kReplanExperts,
                                         .top_k = 8,
                                         .num_tokens = 16384,
                                         .num_topics = 32,
                                         .seed = seed}));
  }
  return sets;
}

std::vector<RunningLayer> running_layers(std::span<const TokenSets> sets,
                                         const PlacementObjective& objective) {
  std::mt19937_64 rng(1);
  std::vector<RunningLayer> layers;
  for (std::int64_t layer = 0; layer < kReplanLayers; ++layer) {
    layers.emplace_back(
        sets[std::size_t(layer) % kDrawn], kReplanCluster, objective,
        testing::random_placement(kReplanExperts, kReplanRanks,
                                  kReplanSlots - kReplanExperts / kReplanRanks, rng));
  }
  return layers;
}

// Within a bound on imbalance, or with a price on it.
void BM_Replan(benchmark::State& state, const PlacementObjective& objective) {
  const auto sets = drawn_sets();
  const auto layers = running_layers(sets, objective);
  std::vector<Placement> placements;
  for (auto _ : state) {
    placements = replan(layers, kMaxMoves, static_cast<int>(state.range(0)));
    benchmark::DoNotOptimize(placements);
  }
  std::int64_t moved = 0;
  double value = 0;  // of the objective, which must not rise when this gets faster
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    value +=
        measure_placement(sets[layer % kDrawn], kReplanCluster, objective, placements[layer]).value;
    moved += num_moved_experts(layers[layer].running(), placements[layer]);
  }
  if (moved > kMaxMoves) return state.SkipWithError("too many experts moved");
  state.counters["moved"] = static_cast<double>(moved);
  state.counters["value"] = value / kReplanLayers;
}
BENCHMARK_CAPTURE(BM_Replan, within_bound, PlacementObjective{.max_imbalance = 1.1})
    ->ArgName("threads")
    ->Arg(2)
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK_CAPTURE(BM_Replan, priced, PlacementObjective{.imbalance_weight = 1})
    ->ArgName("threads")
    ->Arg(2)
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

}  // namespace
}  // namespace c2r
