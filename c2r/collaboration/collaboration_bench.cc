// Counting collaboration in a trace that is in memory, on one thread.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <filesystem>
#include <random>

#include "c2r/collaboration/collaboration.h"

namespace c2r {
namespace {

struct Problem {
  const char* name;
  std::int64_t num_tokens;
  std::int32_t num_layers, num_experts, top_k;
};

// The size of the public gpt-oss-20b trace, and one layer of other shapes.
constexpr Problem kGptOss20b = {"gpt_oss_20b", 215'438, 24, 32, 4};
constexpr Problem kQwenMoe = {"qwen1_5_moe_a2_7b", 1'000'000, 1, 60, 4};
constexpr Problem kDeepSeekV3 = {"deepseek_v3", 1'000'000, 1, 256, 8};

// Popularity falls as 1 / (1 + expert): counting is slower the more often it hits the same counter.
Trace skewed_trace(const Problem& problem) {
  const auto path = std::filesystem::temp_directory_path() /
                    (std::string("c2r_bench_") + problem.name + ".safetensors");
  TraceHeader header{
      .model = problem.name, .num_experts = problem.num_experts, .top_k = problem.top_k};
  for (std::int32_t layer = 0; layer < problem.num_layers; ++layer) {
    header.layer_indices.push_back(layer);
  }
  std::vector<double> popularity;
  for (std::int32_t e = 0; e < problem.num_experts; ++e) popularity.push_back(1.0 / (1 + e));
  std::mt19937 rng(1);
  std::discrete_distribution<std::int32_t> pick(popularity.begin(), popularity.end());

  TraceWriter writer(path, header, false);
  std::vector<ExpertId> row;
  for (std::int32_t layer = 0; layer < problem.num_layers; ++layer) {
    std::vector<ExpertId> topk_idx;
    topk_idx.reserve(static_cast<std::size_t>(problem.num_tokens * problem.top_k));
    while (std::ssize(topk_idx) < problem.num_tokens * problem.top_k) {
      row.clear();
      while (std::ssize(row) < problem.top_k) {
        const ExpertId id{pick(rng)};
        if (std::find(row.begin(), row.end(), id) == row.end()) row.push_back(id);
      }
      topk_idx.insert(topk_idx.end(), row.begin(), row.end());
    }
    writer.append(layer, topk_idx, {}, problem.name);
  }
  writer.finish();
  Trace trace(path);
  std::filesystem::remove(path);  // stays readable while it is mapped
  return trace;
}

bool is_right(const Trace& trace, const CollaborationStatistics& statistics) {
  CollaborationMatrix expected(trace.header().num_experts, trace.header().num_experts);
  add_collaboration(trace.topk_idx(0, 0, trace.num_tokens()), expected);
  return statistics.coactivation[0] == expected;
}

void BM_CountCollaboration(benchmark::State& state, const Problem& problem) {
  const Trace trace = skewed_trace(problem);
  NoProgress progress;
  if (!is_right(trace, count_collaboration(trace, 1, progress))) {
    return state.SkipWithError("the counts are wrong");
  }
  for (auto _ : state) benchmark::DoNotOptimize(count_collaboration(trace, 1, progress));

  const auto choices = static_cast<double>(problem.num_tokens * problem.num_layers);
  state.counters["ns_per_token_and_layer"] = benchmark::Counter(
      choices * 1e-9, benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
  state.counters["bytes_read"] = choices * problem.top_k * (problem.num_experts <= 255 ? 1.0 : 2.0);
}
BENCHMARK_CAPTURE(BM_CountCollaboration, gpt_oss_20b, kGptOss20b)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_CountCollaboration, qwen1_5_moe_a2_7b, kQwenMoe)
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_CountCollaboration, deepseek_v3, kDeepSeekV3)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace c2r
