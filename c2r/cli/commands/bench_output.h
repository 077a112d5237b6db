// What `c2r bench` runs, and how its results are said.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "c2r/bench/bench_layer.h"
#include "c2r/bench/layer_problem.h"
#include "c2r/cli/ranks.h"

namespace c2r::cli {

/// Its options.
struct BenchOptions {
  RankOptions ranks;
  std::string what, problem, trace, plan, cluster, part = "all";
  std::string copy_mode = "per-rank", rule = "fewest-ranks", row_type = "bf16", dtype = "bf16";
  std::int64_t layer = 0, num_tokens = 1024;
  std::optional<std::int32_t> num_chunks;
  std::int32_t num_rounds = 5;
  int num_threads = 1;
  std::uint64_t seed = 0;
  bool is_ablation = false, is_json = false;

  /// Whether the user gave link speeds, from which the links' bound follows.
  bool has_link_speeds() const { return cluster.ends_with(".json"); }
};

/// Prints a table, or JSON, of the results [variants] to standard output.
void print_bench(const BenchOptions& options, const LayerProblem& problem,
                 std::span<const VariantResult> results);

}  // namespace c2r::cli
