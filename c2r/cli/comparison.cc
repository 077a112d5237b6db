#include "c2r/cli/comparison.h"

#include <atomic>
#include <filesystem>
#include <map>
#include <optional>
#include <utility>

#include "c2r/cli/app.h"
#include "c2r/cli/content_hash.h"
#include "c2r/cli/output.h"
#include "c2r/cli/predictions.h"
#include "c2r/cli/progress_line.h"
#include "c2r/cli/version.h"
#include "c2r/core/error.h"
#include "c2r/core/parallel.h"
#include "c2r/placement/baselines/baselines.h"
#include "c2r/placement/model_front.h"

namespace c2r::cli {
namespace {

Comparison start(const CompareOptions& options, const std::vector<Plan>& plans) {
  C2R_REQUIRE(!options.cluster.empty() || !plans.empty(), kInvalidArgument,
              "--cluster is required where no plan says what the cluster is");
  const SequencePart on = parse_sequence_part(options.part);
  const SequencePart fit = options.fit.empty() ? other_part(on) : parse_sequence_part(options.fit);
  const Cluster cluster =
      options.cluster.empty() ? plans[0].cluster : read_cluster(options.cluster);
  const PredictRequest request = request_of(options, cluster);
  C2R_REQUIRE(!options.has_bound || request.copy_mode == CopyMode::kPerRank ||
                  request.copy_mode == CopyMode::kPerNode,
              kInvalidArgument,
              "--bound knows a bound for --copy-mode per-rank and per-node, not {}",
              name_of(request.copy_mode));
  Comparison comparison{.options = options,
                        .trace = Trace(options.trace),
                        .on = on,
                        .fit = fit,
                        .ranges_on = {},
                        .ranges_fit = {},
                        .cluster = cluster,
                        .request = request};
  comparison.ranges_on = tokens_of(comparison.trace, on);
  comparison.ranges_fit = tokens_of(comparison.trace, fit);
  return comparison;
}

void add_baselines(Comparison& comparison) {
  const CompareOptions& options = comparison.options;
  const std::vector<std::string> names = parts_of(options.baselines);
  if (names == std::vector<std::string>{"none"}) return;
  const auto counts =
      count_coactivation(comparison.trace, comparison.ranges_fit, options.num_threads);
  for (const std::string& name : names) {
    const bool looks_at_tokens = name != "contiguous" && name != "round-robin" && name != "random";
    ComparisonEntry entry{.name = name,
                          .kind = "baseline",
                          .fitted_on = looks_at_tokens ? std::string(name_of(comparison.fit)) : "-",
                          .is_fitted = looks_at_tokens && overlap(comparison.fit, comparison.on)};
    try {
      ProgressLine progress("placing experts: " + name);
      entry.placements = place_layers(
          name, counts,
          {.cluster = comparison.cluster,
           .slots_per_rank = comparison.least_slots_per_rank() + options.redundant_slots,
           .seed = options.seed},
          progress);
    } catch (const Error& e) {
      if (e.code() != ErrorCode::kUnsupported) throw;
      comparison.left_out.emplace_back(e.what());
      continue;
    }
    comparison.entries.push_back(std::move(entry));
  }
}

// The optimizer's points, and baselines where they are better.
std::vector<std::vector<OptimizedPlacement>> layer_fronts(const Comparison& comparison) {
  const CompareOptions& options = comparison.options;
  std::vector<std::vector<OptimizedPlacement>> fronts(
      static_cast<std::size_t>(comparison.trace.header().num_layers()));
  ProgressLine progress("placing experts");
  std::atomic<std::int64_t> num_done = 0;
  const PlacementObjective objective = objective_for(comparison.cluster);
  parallel_for(std::ssize(fronts), options.num_threads, [&](std::int64_t l, int thread) {
    const auto layer = static_cast<std::size_t>(l);
    const TokenSets sets = collect_token_sets(comparison.trace, l, comparison.ranges_fit);
    auto points = pareto_front(sets, comparison.cluster, objective,
                               {.seed = options.seed,
                                .effort = options.effort,
                                .redundant_slots_per_rank = options.redundant_slots},
                               options.num_front_points);
    for (const ComparisonEntry& entry : comparison.entries) {
      if (entry.kind != "baseline") continue;
      points.push_back(
          measure_placement(sets, comparison.cluster, objective, entry.placements[layer]));
    }
    fronts[layer] = without_dominated(std::move(points));
    ++num_done;
    if (thread == 0) progress.update(num_done, std::ssize(fronts));
  });
  return fronts;
}

std::string front_plan(const CompareOptions& options, std::size_t number) {
  return fmt::format("{}{}.json", options.front_plans, number);
}

void check_front_plans(const CompareOptions& options) {
  if (options.front_plans.empty()) return;
  std::vector<std::string> inputs = options.plans;
  inputs.insert(inputs.end(), {options.trace, options.cluster});
  for (std::size_t p = 1; p <= std::size_t(options.num_front_points); ++p) {
    check_output(front_plan(options, p), inputs);
  }
}

void write_front_plan(const Comparison& comparison, const ComparisonEntry& entry,
                      std::size_t number) {
  const CompareOptions& options = comparison.options;
  write_plan(plan_of(comparison.trace.header(), comparison.cluster, entry.placements,
                     {.c2r_version = version_text(),
                      .method = "optimize, " + entry.name,
                      .seed = options.seed,
                      .inputs = {{"trace", options.trace + ", " + entry.fitted_on,
                                  content_hash(options.trace)}},
                      .options = {{"fit", entry.fitted_on},
                                  {"redundant_slots", double(options.redundant_slots)},
                                  {"pareto", double(options.num_front_points)},
                                  {"effort", options.effort}},
                      .ended_by = "work"}),
             front_plan(options, number));
}

void add_front(Comparison& comparison) {
  const auto fronts = layer_fronts(comparison);
  const auto points =
      model_front(fronts, static_cast<std::size_t>(comparison.options.num_front_points));
  for (std::size_t p = 0; p < points.size(); ++p) {
    ComparisonEntry entry{.name = fmt::format("front {} of {}", p + 1, points.size()),
                          .kind = "front",
                          .fitted_on = std::string(name_of(comparison.fit)),
                          .is_fitted = overlap(comparison.fit, comparison.on)};
    for (std::size_t layer = 0; layer < fronts.size(); ++layer) {
      entry.placements.push_back(fronts[layer][points[p].chosen[layer]].placement);
    }
    if (!comparison.options.front_plans.empty()) write_front_plan(comparison, entry, p + 1);
    comparison.entries.push_back(std::move(entry));
  }
}

struct FittedTokens {
  std::string name;
  bool is_reported = false;  // some of them are
  bool is_by_name = false;   // the plan says only what the trace was called
};

// The part at the end of "TRACE, PART", as `c2r plan` writes it.
std::optional<SequencePart> part_of(const std::string& name) {
  for (const SequencePart part : {SequencePart::kAll, SequencePart::kEven, SequencePart::kOdd,
                                  SequencePart::kFirstHalf, SequencePart::kSecondHalf}) {
    if (name.ends_with(fmt::format(", {}", name_of(part)))) return part;
  }
  return std::nullopt;
}

// What the plan says of the tokens that it was fitted on. Of another trace we know nothing.
FittedTokens fitted_on(const Plan& plan, const Comparison& comparison) {
  const std::string& trace = comparison.options.trace;
  for (const PlanInput& input : plan.provenance.inputs) {
    if (input.role != "trace") continue;
    const auto part = part_of(input.name);
    if (!part) return {.name = input.name};
    const std::string same_name =
        fmt::format("{}, {}", std::filesystem::path(trace).filename().string(), name_of(*part));
    const bool is_by_name = input.hash.empty();
    const bool is_same = is_by_name ? std::filesystem::path(input.name).filename() == same_name
                                    : input.hash == content_hash(trace);
    if (!is_same) return {.name = input.name};
    return {.name = std::string(name_of(*part)),
            .is_reported = overlap(*part, comparison.on),
            .is_by_name = is_by_name};
  }
  return {.name = "unknown"};
}

void add_plans(std::vector<Plan> plans, Comparison& comparison) {
  for (std::size_t p = 0; p < plans.size(); ++p) {
    const Cluster &own = plans[p].cluster, &common = comparison.cluster;
    C2R_REQUIRE(own.num_nodes == common.num_nodes && own.ranks_per_node == common.ranks_per_node,
                kInvalidArgument, "{} is for a cluster of {}x{} ranks, but {}x{} are compared",
                comparison.options.plans[p], own.num_nodes, own.ranks_per_node, common.num_nodes,
                common.ranks_per_node);
    try {
      check_fits(plans[p], comparison.trace.header(), comparison.options.trace);
    } catch (const Error& e) {
      C2R_THROW(kInvalidArgument, "{}: {}", comparison.options.plans[p], e.what());
    }
    FittedTokens fitted = fitted_on(plans[p], comparison);
    comparison.entries.push_back({.name = comparison.options.plans[p],
                                  .kind = "plan",
                                  .fitted_on = std::move(fitted.name),
                                  .is_fitted = fitted.is_reported,
                                  .is_by_name = fitted.is_by_name,
                                  .placements = placements_of(plans[p])});
  }
}

// A short search proves what a long one would: the bound is of the tokens, not of what is found.
double copies_bound(const Comparison& comparison, std::int32_t slots_per_rank) {
  std::vector<double> bounds;
  ProgressLine progress("bounding copies");
  for (const OptimizedPlacement& layer : optimize_placements(
           comparison.trace.header().num_layers(),
           [&](std::int64_t l) {
             return collect_token_sets(comparison.trace, l, comparison.ranges_on);
           },
           comparison.cluster, {},
           {.effort = 0.01,
           .redundant_slots_per_rank = slots_per_rank - comparison.least_slots_per_rank(),
           .num_threads = comparison.options.num_threads},
           progress)) {
    bounds.push_back(layer.copy_cost_bound);
  }
  return mean(bounds);
}

void predict_entries(Comparison& comparison) {
  const CompareOptions& options = comparison.options;
  std::map<std::int32_t, double> bounds;  // by slots per rank
  for (ComparisonEntry& entry : comparison.entries) {
    ProgressLine progress("counting " + entry.name);
    entry.prediction = predict(comparison.trace, comparison.ranges_on, entry.placements,
                               comparison.request, options.num_threads, progress);
    entry.prediction.placement = entry.name;
    entry.prediction.trace = fmt::format("{}, {}", options.trace, name_of(comparison.on));
    if (!options.has_bound) continue;
    const std::int32_t slots = entry.slots_per_rank();
    if (!bounds.contains(slots)) bounds[slots] = copies_bound(comparison, slots);
    entry.copies_bound = bounds[slots];
  }
}

}  // namespace

Comparison make_comparison(const CompareOptions& options) {
  check_front_plans(options);
  std::vector<Plan> plans;
  for (const std::string& path : options.plans) plans.push_back(read_plan(path));
  Comparison comparison = start(options, plans);
  add_baselines(comparison);
  add_plans(std::move(plans), comparison);
  if (options.num_front_points > 0) add_front(comparison);
  C2R_REQUIRE(!comparison.entries.empty(), kInvalidArgument, "there is nothing to compare{}",
              comparison.left_out.empty() ? "" : ": " + comparison.left_out[0]);
  predict_entries(comparison);
  return comparison;
}

}  // namespace c2r::cli
