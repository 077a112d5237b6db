// Prints the results of `c2r bench layer --device cuda`.
#include <algorithm>
#include <iostream>

#include "c2r/bench/bench_device.h"
#include "c2r/bench/median.h"
#include "c2r/cli/commands/bench_output.h"
#include "c2r/core/version.h"
#include "c2r/io/json.h"
#include "c2r/report/table.h"

namespace c2r::cli {
namespace {

Json device_variant_json(const LayerVariant& variant, const DeviceVariantResult& result) {
  Json json = {{"name", variant.name},
               {"copy_mode", name_of(variant.dispatch.traffic.copy_mode)},
               {"num_chunks", result.num_chunks},
               {"seconds", result.seconds},
               {"median_s", median(result.seconds)},
               {"min_s", std::ranges::min(result.seconds)},
               {"max_rows", result.max_rows},
               {"busiest_rank_flop", result.busiest_flop},
               {"least_bytes", result.least_bytes},
               {"start_dispatch_bytes", result.gather_bytes},
               {"finish_combine_bytes", result.returns_bytes},
               {"bound_s", result.bound_s},
               {"median_of_bound", median(result.seconds) / result.bound_s}};
  Json& phases = json["phase_seconds"] = Json::object();
  for (std::size_t p = 0; p < kNumPhases; ++p) {
    Json& ranks = phases[std::string(phase_names()[p])] = Json::array();
    for (std::int64_t r = 0; r < result.phase_seconds.rows(); ++r) {
      ranks.push_back(result.phase_seconds(r, std::int64_t(p)));
    }
  }
  return json;
}

Json device_bench_json(const BenchOptions& options, const LayerProblem& problem,
                       const DeviceBenchResult& result) {
  const LayerShape& shape = problem.shape;
  Json json = {{"version", version_text()},
               {"problem", shape.name},
               {"what", options.what},
               {"device", result.device},
               {"network", result.network},
               {"num_experts", shape.num_experts},
               {"top_k", shape.top_k},
               {"hidden", shape.hidden},
               {"intermediate", shape.intermediate},
               {"routing", problem.routing},
               {"ep_size", problem.cluster.ep_size()},
               {"tokens_per_rank", options.num_tokens},
               {"row_type", options.row_type},
               {"num_rounds", options.num_rounds},
               {"copy_bytes_per_s", result.rates.copy_bytes_per_s},
               {"product_flop_per_s", result.rates.product_flop_per_s},
               {"routing_s", result.routing_s},
               {"routing_bytes", result.routing_bytes},
               {"routes_s", result.routes_s}};
  for (std::size_t v = 0; v < result.variants.size(); ++v) {
    json["variants"].push_back(device_variant_json(problem.variants[v], result.variants[v]));
  }
  return json;
}

std::string us(double seconds) {
  return fmt::format("{:.1f}", 1e6 * seconds);
}

}  // namespace

void print_device_bench(const BenchOptions& options, const LayerProblem& problem,
                        const DeviceBenchResult& result) {
  if (options.is_json) {
    std::cout << json_text(device_bench_json(options, problem, result), 1) << "\n";
    return;
  }
  const LayerShape& shape = problem.shape;
  std::cout << fmt::format(
      "layer of {} on {}: {} experts, top-{}, hidden {}, intermediate {}\n"
      "{} ranks of {} tokens over {}, {} rows; {}\n"
      "measured: {:.2f} TB/s of copies, {:.1f} TFLOP/s of a product in bf16\n"
      "routing {} us, routes {} us\n\n",
      shape.name, result.device, shape.num_experts, shape.top_k, shape.hidden, shape.intermediate,
      problem.cluster.ep_size(), options.num_tokens, result.network, options.row_type,
      problem.routing, 1e-12 * result.rates.copy_bytes_per_s,
      1e-12 * result.rates.product_flop_per_s, us(result.routing_s), us(result.routes_s));
  std::vector<std::vector<std::string>> rows{{"", "us", "best us", "chunks", "bound us"}};
  for (const std::string_view phase : phase_names()) rows[0].push_back(std::string(phase) + " us");
  for (std::size_t v = 0; v < result.variants.size(); ++v) {
    const DeviceVariantResult& variant = result.variants[v];
    rows.push_back({problem.variants[v].name, us(median(variant.seconds)),
                    us(std::ranges::min(variant.seconds)), fmt::format("{}", variant.num_chunks),
                    us(variant.bound_s)});
    for (std::size_t p = 0; p < kNumPhases; ++p) {
      rows.back().push_back(us(variant.phase_seconds(0, std::int64_t(p))));
    }
  }
  std::cout << render_table(rows)
            << "\nphases: of rank 0, with a wait after each, so nothing overlaps in them\n";
}

}  // namespace c2r::cli
