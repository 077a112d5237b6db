// The options of `c2r bench layer` and `c2r bench exchange`, and the output of their results.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "c2r/bench/bench_layer.h"
#include "c2r/bench/layer_problem.h"
#include "c2r/cli/ranks.h"

namespace c2r {
struct DeviceBenchResult;
}  // namespace c2r

namespace c2r::cli {

/// The options of both commands.
struct BenchOptions {
  RankOptions ranks;
  std::string what, problem, trace, plan, cluster, hardware_out, part = "all";
  std::string copy_mode = "per-rank", rule = "fewest-ranks", row_type = "bf16", dtype = "bf16";
  std::string device = "cpu";
  std::int64_t layer = 0, num_tokens = 1024;
  std::optional<std::int32_t> num_chunks;
  std::int32_t num_rounds = 5;
  int num_threads = 1;
  std::uint64_t seed = 0;
  bool is_ablation = false, is_json = false;

  /// @returns whether --cluster has link speeds, from which the bound of the links follows
  bool has_link_speeds() const { return cluster.ends_with(".json"); }
};

/// Prints a table, or JSON, of the results [variants] to standard output.
void print_bench(const BenchOptions& options, const LayerProblem& problem,
                 std::span<const VariantResult> results);
/// The same of results on GPUs.
void print_device_bench(const BenchOptions& options, const LayerProblem& problem,
                        const DeviceBenchResult& result);

}  // namespace c2r::cli
