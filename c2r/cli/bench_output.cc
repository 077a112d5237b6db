#include "c2r/cli/bench_output.h"

#include <algorithm>
#include <iostream>
#include <numeric>

#include "c2r/cli/version.h"
#include "c2r/io/json.h"
#include "c2r/report/table.h"

namespace c2r::cli {
namespace {

std::int64_t total(const Matrix<std::int64_t>& bytes) {
  return std::accumulate(bytes.all().begin(), bytes.all().end(), std::int64_t{0});
}

// The most that one rank sends or receives.
std::int64_t busiest_rank_bytes(const Matrix<std::int64_t>& bytes) {
  std::int64_t busiest = 0;
  for (std::int64_t rank = 0; rank < bytes.rows(); ++rank) {
    std::int64_t sent = 0, received = 0;
    for (std::int64_t peer = 0; peer < bytes.rows(); ++peer) {
      sent += bytes(rank, peer), received += bytes(peer, rank);
    }
    busiest = std::max({busiest, sent, received});
  }
  return busiest;
}

// The least time for what the busiest link carries: a rank's links are one into its node and one
// out of it, each in both directions at once.
double link_bound_s(const Matrix<std::int64_t>& bytes, const Cluster& cluster) {
  double bound = 0;
  for (std::int32_t rank = 0; rank < cluster.ep_size(); ++rank) {
    double inside_out = 0, inside_in = 0, outside_out = 0, outside_in = 0;
    for (std::int32_t peer = 0; peer < cluster.ep_size(); ++peer) {
      const bool is_inside = cluster.node_of(RankId{rank}) == cluster.node_of(RankId{peer});
      (is_inside ? inside_out : outside_out) += double(bytes(rank, peer));
      (is_inside ? inside_in : outside_in) += double(bytes(peer, rank));
    }
    bound =
        std::max({bound, std::max(inside_out, inside_in) / cluster.intra_node.bandwidth_bytes_per_s,
                  std::max(outside_out, outside_in) / cluster.inter_node.bandwidth_bytes_per_s});
  }
  return bound;
}

double flops_of_busiest(const BenchProblem& problem, const VariantResult& result,
                        std::int64_t num_tokens) {
  const LayerShape& shape = problem.shape;
  return 6.0 * double(shape.hidden) *
         (double(result.max_rows) * double(shape.intermediate) +
          double(num_tokens) * double(shape.shared_intermediate));
}

// What is said of a variant.
struct Summary {
  double median_s = 0, min_s = 0, compute_s = 0, links_s = 0;
  double ratio = 0;        // medians, to the baseline's
  double best_ratio = 0;   // the same of the fastest rounds
  double exchange_s = 0;   // of the slowest rank: all phases that compute no expert
  double bytes_per_s = 0;  // what the busiest rank sends or receives, there and back, over that
};

Summary summarize(const BenchProblem& problem, const VariantResult& result,
                  const VariantResult& baseline) {
  Summary s{.median_s = median(result.seconds),
            .min_s = std::ranges::min(result.seconds),
            .compute_s = std::ranges::min(result.compute_seconds),
            .links_s = link_bound_s(result.dispatch_bytes, problem.cluster) +
                       link_bound_s(result.combine_bytes, problem.cluster)};
  for (std::int64_t r = 0; r < result.phase_seconds.rows(); ++r) {
    double exchange_s = 0;
    for (std::size_t p = 0; p < kNumPhases; ++p) {
      const bool computes = phase_names()[p] == "experts" || phase_names()[p] == "meanwhile";
      if (!computes) exchange_s += result.phase_seconds(r, std::int64_t(p));
    }
    s.exchange_s = std::max(s.exchange_s, exchange_s);
  }
  s.bytes_per_s =
      double(busiest_rank_bytes(result.dispatch_bytes) + busiest_rank_bytes(result.combine_bytes)) /
      s.exchange_s;
  s.ratio = s.median_s / median(baseline.seconds);
  s.best_ratio = s.min_s / std::ranges::min(baseline.seconds);
  return s;
}

Json matrix_json(const Matrix<std::int64_t>& matrix) {
  Json rows = Json::array();
  for (std::int64_t r = 0; r < matrix.rows(); ++r) {
    rows.push_back(std::vector<std::int64_t>(matrix.row(r).begin(), matrix.row(r).end()));
  }
  return rows;
}

Json variant_json(const BenchOptions& options, const BenchProblem& problem,
                  const LayerVariant& variant, const VariantResult& result,
                  const VariantResult& baseline) {
  const Summary s = summarize(problem, result, baseline);
  Json json = {{"name", variant.name},
               {"copy_mode", name_of(variant.dispatch.mode)},
               {"replica_rule", name_of(variant.dispatch.rule)},
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
               {"busiest_rank_flop", flops_of_busiest(problem, result, options.num_tokens)},
               {"metadata_bytes", matrix_json(result.metadata_bytes)},
               {"dispatch_bytes", matrix_json(result.dispatch_bytes)},
               {"combine_bytes", matrix_json(result.combine_bytes)}};
  if (problem.has_link_speeds) json["links_bound_s"] = s.links_s;
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

std::string variants_table(const BenchProblem& problem, std::span<const VariantResult> results) {
  std::vector<std::vector<std::string>> rows{{"", "ms", "best ms", "of baseline", "MB there",
                                              "MB back", "kB metadata", "exchange MB/s",
                                              "compute only ms"}};
  if (problem.has_link_speeds) rows[0].emplace_back("links bound ms");
  for (std::size_t v = 0; v < results.size(); ++v) {
    const Summary s = summarize(problem, results[v], results.back());
    rows.push_back({problem.variants[v].name, ms(s.median_s), ms(s.min_s),
                    fmt::format("{:.3f}", s.ratio),
                    fmt::format("{:.3f}", double(total(results[v].dispatch_bytes)) / 1e6),
                    fmt::format("{:.3f}", double(total(results[v].combine_bytes)) / 1e6),
                    fmt::format("{:.1f}", double(total(results[v].metadata_bytes)) / 1e3),
                    fmt::format("{:.1f}", s.bytes_per_s / 1e6), ms(s.compute_s)});
    if (problem.has_link_speeds) rows.back().push_back(ms(s.links_s));
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

// What each rank sends to each in dispatch; combine is the same backwards, but for rows of choices.
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

}  // namespace

void print_bench(const BenchOptions& options, const BenchProblem& problem,
                 std::span<const VariantResult> results) {
  const LayerShape& shape = problem.shape;
  const std::int32_t ep_size = problem.cluster.ep_size();
  if (options.is_json) {
    Json json = {{"version", version_text()},
                 {"problem", shape.name},
                 {"what", options.what},
                 {"num_experts", shape.num_experts},
                 {"top_k", shape.top_k},
                 {"hidden", shape.hidden},
                 {"intermediate", shape.intermediate},
                 {"shared_intermediate", shape.shared_intermediate},
                 {"routing", problem.routing},
                 {"ep_size", ep_size},
                 {"cluster", cluster_to_json(problem.cluster)},
                 {"tokens_per_rank", options.num_tokens},
                 {"threads_per_rank", options.num_threads},
                 {"row_type", options.row_type},
                 {"num_rounds", options.num_rounds}};
    for (std::size_t v = 0; v < results.size(); ++v) {
      json["variants"].push_back(
          variant_json(options, problem, problem.variants[v], results[v], results.back()));
    }
    std::cout << json_text(json, 1) << "\n";
    return;
  }
  std::cout << fmt::format(
      "{} of {}: {} experts, top-{}, hidden {}, intermediate {}, shared {}\n"
      "{} ranks ({}x{}) of {} tokens, {} threads each, {} rows; {}\n\n",
      options.what, shape.name, shape.num_experts, shape.top_k, shape.hidden, shape.intermediate,
      shape.shared_intermediate, ep_size, problem.cluster.num_nodes, problem.cluster.ranks_per_node,
      options.num_tokens, options.num_threads, options.row_type, problem.routing);
  std::cout << variants_table(problem, results) << "\n" << phases_table(results[0]);
  if (ep_size <= 16) std::cout << "\n" << links_table(results[0]);
}

}  // namespace c2r::cli
