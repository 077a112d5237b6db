// Prints the results of `c2r bench layer` and `c2r bench exchange`.
#include "c2r/cli/commands/bench_output.h"

#include <iostream>

#include "c2r/bench/layer_summary.h"
#include "c2r/core/version.h"
#include "c2r/io/matrix_json.h"
#include "c2r/report/table.h"

namespace c2r::cli {
namespace {

Json variant_json(const BenchOptions& options, const LayerVariant& variant,
                  const VariantResult& result, const LayerSummary& s) {
  Json json = {{"name", variant.name},
               {"copy_mode", name_of(variant.dispatch.traffic.copy_mode)},
               {"replica_rule", name_of(variant.dispatch.traffic.replica_rule)},
               {"num_chunks", result.num_chunks},
               {"overlaps_shared", variant.overlaps_shared},
               {"seconds", result.seconds},
               {"median_s", s.median_s},
               {"min_s", s.min_s},
               {"ratio_to_baseline", s.ratio},
               {"ratio_of_best_to_baseline", s.best_ratio},
               {"compute_only_s", s.compute_s},
               {"exchange_s", s.exchange_s},
               {"exchange_bytes_per_s", s.bytes_per_s},
               {"busiest_rank_flop", s.busiest_flop},
               {"metadata_bytes", matrix_to_json(result.metadata_bytes)},
               {"dispatch_bytes", matrix_to_json(result.dispatch_bytes)},
               {"combine_bytes", matrix_to_json(result.combine_bytes)}};
  if (options.has_link_speeds()) json["links_bound_s"] = s.links_s;
  Json& phases = json["phase_seconds"] = Json::object();
  for (std::size_t p = 0; p < kNumPhases; ++p) {
    Json& ranks = phases[std::string(phase_names()[p])] = Json::array();
    for (std::int64_t r = 0; r < result.phase_seconds.rows(); ++r) {
      ranks.push_back(result.phase_seconds(r, std::int64_t(p)));
    }
  }
  return json;
}

std::string ms(double seconds) {
  return fmt::format("{:.2f}", 1e3 * seconds);
}

std::string variants_table(const BenchOptions& options, const LayerProblem& problem,
                           std::span<const LayerSummary> summaries) {
  std::vector<std::vector<std::string>> rows{{"", "ms", "best ms", "of baseline", "MB there",
                                              "MB back", "kB metadata", "exchange MB/s",
                                              "compute only ms"}};
  if (options.has_link_speeds()) rows[0].emplace_back("links bound ms");
  for (std::size_t v = 0; v < summaries.size(); ++v) {
    const LayerSummary& s = summaries[v];
    rows.push_back({problem.variants[v].name, ms(s.median_s), ms(s.min_s),
                    fmt::format("{:.3f}", s.ratio),
                    fmt::format("{:.3f}", double(s.dispatch_bytes) / 1e6),
                    fmt::format("{:.3f}", double(s.combine_bytes) / 1e6),
                    fmt::format("{:.1f}", double(s.metadata_bytes) / 1e3),
                    fmt::format("{:.1f}", s.bytes_per_s / 1e6), ms(s.compute_s)});
    if (options.has_link_speeds()) rows.back().push_back(ms(s.links_s));
  }
  return render_table(rows);
}

std::string phases_table(const VariantResult& result) {
  std::vector<std::vector<std::string>> rows{{"ms by rank"}};
  for (const std::string_view phase : phase_names()) rows[0].emplace_back(phase);
  for (std::int64_t r = 0; r < result.phase_seconds.rows(); ++r) {
    rows.push_back({fmt::format("{}", r)});
    for (const double s : result.phase_seconds.row(r)) rows.back().push_back(ms(s));
  }
  return render_table(rows);
}

// The bytes that each rank sends to each other in dispatch. Combine has the same in the other
// direction unless each choice is a row of its own.
std::string links_table(const VariantResult& result) {
  std::vector<std::vector<std::string>> rows{{"kB there"}};
  for (std::int64_t dst = 0; dst < result.dispatch_bytes.cols(); ++dst) {
    rows[0].push_back(fmt::format("to {}", dst));
  }
  for (std::int64_t src = 0; src < result.dispatch_bytes.rows(); ++src) {
    rows.push_back({fmt::format("from {}", src)});
    for (const std::int64_t bytes : result.dispatch_bytes.row(src)) {
      rows.back().push_back(fmt::format("{:.1f}", double(bytes) / 1e3));
    }
  }
  return render_table(rows);
}

void print_bench_json(const BenchOptions& options, const LayerProblem& problem,
                      std::span<const VariantResult> results,
                      std::span<const LayerSummary> summaries) {
  const LayerShape& shape = problem.shape;
  Json json = {{"version", version_text()},
               {"problem", shape.name},
               {"what", options.what},
               {"num_experts", shape.num_experts},
               {"top_k", shape.top_k},
               {"hidden", shape.hidden},
               {"intermediate", shape.intermediate},
               {"shared_intermediate", shape.shared_intermediate},
               {"routing", problem.routing},
               {"ep_size", problem.cluster.ep_size()},
               {"cluster", cluster_to_json(problem.cluster)},
               {"tokens_per_rank", options.num_tokens},
               {"threads_per_rank", options.num_threads},
               {"row_type", options.row_type},
               {"num_rounds", options.num_rounds}};
  for (std::size_t v = 0; v < results.size(); ++v) {
    json["variants"].push_back(
        variant_json(options, problem.variants[v], results[v], summaries[v]));
  }
  std::cout << json_text(json, 1) << "\n";
}

}  // namespace

void print_bench(const BenchOptions& options, const LayerProblem& problem,
                 std::span<const VariantResult> results) {
  std::vector<LayerSummary> summaries;
  for (const VariantResult& result : results) {
    summaries.push_back(summarize(problem, options.num_tokens, result, results.back()));
  }
  if (options.is_json) {
    print_bench_json(options, problem, results, summaries);
    return;
  }
  const LayerShape& shape = problem.shape;
  const Cluster& cluster = problem.cluster;
  std::cout << fmt::format(
      "{} of {}: {} experts, top-{}, hidden {}, intermediate {}, shared {}\n"
      "{} ranks ({}x{}) of {} tokens, {} threads each, {} rows; {}\n\n",
      options.what, shape.name, shape.num_experts, shape.top_k, shape.hidden, shape.intermediate,
      shape.shared_intermediate, cluster.ep_size(), cluster.num_nodes, cluster.ranks_per_node,
      options.num_tokens, options.num_threads, options.row_type, problem.routing);
  std::cout << variants_table(options, problem, summaries) << "\n" << phases_table(results[0]);
  if (cluster.ep_size() <= 16) std::cout << "\n" << links_table(results[0]);
}

}  // namespace c2r::cli
