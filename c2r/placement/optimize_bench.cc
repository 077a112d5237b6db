// The optimizer on problems of the size of real models, with routing drawn as in
// optimize_problems_internal.h. copies_per_token, imbalance and gap are means over layers; a result
// is checked against the definition before it counts.
#include <benchmark/benchmark.h>

#include <set>
#include <vector>

#include "c2r/core/at.h"
#include "c2r/placement/optimize.h"
#include "c2r/placement/search/optimize_problems_internal.h"

namespace c2r {
namespace {

struct Problem {
  ClusteredRouting routing;
  Cluster cluster;
  std::int64_t num_layers = 1;
  std::int32_t redundant_slots_per_rank = 0;
};

// Both models' whole problems are 24 and 58 layers; layers are independent and cost the same.
constexpr ClusteredRouting kGptOss20b = {
    .num_experts = 32, .top_k = 4, .num_tokens = 100'000, .num_topics = 16};
constexpr ClusteredRouting kDeepseekV3 = {
    .num_experts = 256, .top_k = 8, .num_tokens = 100'000, .num_topics = 64};

bool is_as_defined(const TokenSets& sets, const OptimizedPlacement& result) {
  if (result.placement.slots.rows() * result.placement.slots.cols() > sets.num_experts) {
    return result.copies_per_token >= 1;  // with replicas: see the tests
  }
  const auto ranks = ranks_of_experts(result.placement);
  std::int64_t copies = 0;
  for (std::int64_t set = 0; set < sets.num_sets(); ++set) {
    std::set<RankId> visited;
    for (const ExpertId e : sets.experts.row(set)) visited.insert(at(ranks, e)[0]);
    copies += std::ssize(visited) * at(sets.multiplicity, set);
  }
  const double expected = static_cast<double>(copies) / static_cast<double>(sets.num_tokens);
  return std::abs(result.copies_per_token - expected) < 1e-9;
}

void run(benchmark::State& state, const Problem& problem, const PlacementObjective& objective) {
  std::vector<TokenSets> layers;
  for (std::int64_t layer = 0; layer < problem.num_layers; ++layer) {
    ClusteredRouting routing = problem.routing;
    routing.seed = static_cast<std::uint64_t>(layer);
    layers.push_back(clustered_token_sets(routing));
  }
  std::vector<OptimizedPlacement> results;
  NoProgress progress;
  for (auto _ : state) {
    results = optimize_placements(
        problem.num_layers, [&](std::int64_t layer) { return at(layers, layer); }, problem.cluster,
        objective, {.redundant_slots_per_rank = problem.redundant_slots_per_rank, .num_threads = 1},
        progress);
  }
  double copies = 0, imbalance = 0, gap = 0;
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    if (!is_as_defined(layers[layer], results[layer])) {
      return state.SkipWithError("the result is wrong");
    }
    copies += results[layer].copies_per_token;
    imbalance += results[layer].imbalance;
    gap += results[layer].value / results[layer].value_bound - 1;
  }
  const auto num_layers = static_cast<double>(problem.num_layers);
  state.SetItemsProcessed(state.iterations() * problem.num_layers);
  state.counters["copies_per_token"] = copies / num_layers;
  state.counters["imbalance"] = imbalance / num_layers;
  state.counters["gap"] = gap / num_layers;
}

void gpt_oss_20b_ep4(benchmark::State& state) {
  run(state, {.routing = kGptOss20b, .cluster = {1, 4}}, {.max_imbalance = 1.05});
}
void gpt_oss_20b_ep8(benchmark::State& state) {
  run(state, {.routing = kGptOss20b, .cluster = {1, 8}}, {.max_imbalance = 1.05});
}
void gpt_oss_20b_ep8_redundant(benchmark::State& state) {
  run(state, {.routing = kGptOss20b, .cluster = {1, 8}, .redundant_slots_per_rank = 1},
      {.max_imbalance = 1.05});
}
void deepseek_v3_ep64(benchmark::State& state) {
  const Problem problem{.routing = kDeepseekV3, .cluster = {8, 8}, .redundant_slots_per_rank = 1};
  run(state, problem, objective_for(problem.cluster));
}

BENCHMARK(gpt_oss_20b_ep4)->Unit(benchmark::kMillisecond);
BENCHMARK(gpt_oss_20b_ep8)->Unit(benchmark::kMillisecond);
BENCHMARK(gpt_oss_20b_ep8_redundant)->Unit(benchmark::kMillisecond);
BENCHMARK(deepseek_v3_ep64)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace c2r
