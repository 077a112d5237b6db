// What `c2r bench` runs, and how its results are said.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "c2r/bench/bench_layer.h"
#include "c2r/cli/ranks.h"
#include "c2r/placement/cluster.h"
#include "c2r/trace/trace.h"

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
};

/// What all ranks know before they start.
struct BenchProblem {
  LayerShape shape;
  std::string routing;  // where choices are from
  Cluster cluster;
  bool has_link_speeds = false;  // the user gave some
  std::vector<LayerVariant> variants;
  std::optional<Trace> trace;
  std::optional<RandomExperts> experts;
};

/// Prints a table, or JSON, of the results [variants] to standard output.
void print_bench(const BenchOptions& options, const BenchProblem& problem,
                 std::span<const VariantResult> results);

}  // namespace c2r::cli
