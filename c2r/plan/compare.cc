// Collects the placements of a comparison and counts them on the same tokens.
#include "c2r/plan/compare.h"

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <map>
#include <utility>

#include "c2r/core/error.h"
#include "c2r/core/parallel.h"
#include "c2r/core/version.h"
#include "c2r/placement/baselines/baselines.h"
#include "c2r/placement/model_front.h"
#include "c2r/plan/content_hash.h"
#include "c2r/plan/plan_check.h"

namespace c2r {
namespace {

// The arguments of all parts of a comparison.
struct Comparing {
  const RoutedTokens on, fit;  // the counted tokens, and those that placements are fitted on
  const CompareRequest& request;
  Progress& progress;
  std::string path, hash;  // of the file; counts have no hash

  const TraceHeader& header() const { return on.header(); }
  bool has_tokens() const { return on.statistics == nullptr; }
  const Cluster& cluster() const { return request.predict.traffic.cluster; }
  std::int32_t least_slots_per_rank() const {
    const std::int32_t ep_size = cluster().ep_size();
    return (header().num_experts + ep_size - 1) / ep_size;
  }
};

void check_compare_request(const CompareRequest& request) {
  check_cluster(request.predict.traffic.cluster);
  const CopyMode mode = request.predict.traffic.copy_mode;
  C2R_REQUIRE(!request.bounds_copies || mode == CopyMode::kPerRank || mode == CopyMode::kPerNode,
              kInvalidArgument, "copies have a bound in the modes per-rank and per-node, not in {}",
              name_of(mode));
  C2R_REQUIRE(!request.num_front_points || *request.num_front_points >= 2, kInvalidArgument,
              "a front has {} points, but must have at least 2",
              request.num_front_points.value_or(0));
  C2R_REQUIRE(request.redundant_slots_per_rank >= 0, kInvalidArgument,
              "redundant_slots_per_rank is {}, but must be at least 0",
              request.redundant_slots_per_rank);
}

void add_baselines(const Comparing& with, Comparison& comparison) {
  const CompareRequest& request = with.request;
  if (request.baselines.empty()) return;
  const auto counts = pair_counts_of(with.fit, request.num_threads);
  for (const std::string& name : request.baselines) {
    const bool looks_at_tokens = name != "contiguous" && name != "round-robin" && name != "random";
    ComparisonEntry entry{.name = name,
                          .kind = "baseline",
                          .fitted_on = looks_at_tokens ? std::string(name_of(request.fit)) : "-",
                          .is_fitted = looks_at_tokens && overlap(request.fit, request.on)};
    try {
      with.progress.begin("placing experts: " + name);
      entry.placements = place_layers(
          name, counts,
          {.has_pairs = !with.fit.has_loads_only(),
           .cluster = with.cluster(),
           .slots_per_rank = with.least_slots_per_rank() + request.redundant_slots_per_rank,
           .seed = request.seed},
          with.progress, &comparison.notes);
      for (Placement& placement : entry.placements) {
        if (!with.fit.has_loads_only()) empty_wasted_slots(placement.slots);
      }
    } catch (const Error& e) {
      if (e.code() != ErrorCode::kUnsupported) throw;
      comparison.left_out.emplace_back(e.what());
      continue;
    }
    comparison.entries.push_back(std::move(entry));
  }
}

// @returns for each layer the points of the optimizer and the baselines, without dominated ones
std::vector<std::vector<OptimizedPlacement>> layer_fronts(const Comparing& with,
                                                          const Comparison& comparison) {
  const CompareRequest& request = with.request;
  std::vector<std::vector<OptimizedPlacement>> fronts(
      static_cast<std::size_t>(with.header().num_layers()));
  with.progress.begin("placing experts");
  std::atomic<std::int64_t> num_done = 0;
  const PlacementObjective objective = objective_for(with.cluster());
  parallel_for(std::ssize(fronts), request.num_threads, [&](std::int64_t l, int thread) {
    const auto layer = static_cast<std::size_t>(l);
    const TokenSets sets = token_sets_of(with.fit, l);
    auto points = pareto_front(sets, with.cluster(), objective,
                               {.seed = request.seed,
                                .effort = request.effort,
                                .redundant_slots_per_rank = request.redundant_slots_per_rank},
                               *request.num_front_points);
    for (const ComparisonEntry& entry : comparison.entries) {
      const Placement& placement = entry.placements[layer];
      const bool has_empty_slots = std::ranges::count(placement.slots.all(), kNoExpert) > 0;
      if (entry.kind != "baseline" || has_empty_slots) continue;
      points.push_back(measure_placement(sets, with.cluster(), objective, placement));
    }
    fronts[layer] = without_dominated(std::move(points));
    const std::int64_t done = ++num_done;
    if (thread == 0) with.progress.update(done, std::ssize(fronts));
  });
  with.progress.update(std::ssize(fronts), std::ssize(fronts));
  return fronts;
}

void add_front(const Comparing& with, Comparison& comparison) {
  const CompareRequest& request = with.request;
  const auto fronts = layer_fronts(with, comparison);
  const auto points = model_front(fronts, static_cast<std::size_t>(*request.num_front_points));
  for (std::size_t p = 0; p < points.size(); ++p) {
    ComparisonEntry entry{.name = fmt::format("front {} of {}", p + 1, points.size()),
                          .kind = "front",
                          .fitted_on = std::string(name_of(request.fit)),
                          .is_fitted = overlap(request.fit, request.on)};
    for (std::size_t layer = 0; layer < fronts.size(); ++layer) {
      entry.placements.push_back(fronts[layer][points[p].chosen[layer]].placement);
    }
    comparison.entries.push_back(std::move(entry));
  }
}

struct FittedTokens {
  std::string name;
  bool is_reported = false;  // some of them are
  bool is_by_name = false;   // the plan says only what the trace was called
};

bool is_same_file(const PlanInput& input, const Comparing& with) {
  if (!input.hash.empty()) return input.hash == with.hash;
  return std::filesystem::path(input.name).filename() ==
         std::filesystem::path(with.path).filename();
}

// @returns the tokens that the plan was fitted on. Of a trace with another hash only the name is
// known.
FittedTokens fitted_on(const Plan& plan, const Comparing& with) {
  std::string names;
  for (const PlanInput& input : plan.provenance.inputs) {
    const bool is_counts = input.role == "statistics";
    if (input.role != "trace" && !is_counts) continue;
    if ((input.part || is_counts) && is_same_file(input, with)) {
      const SequencePart part = input.part.value_or(SequencePart::kAll);
      return {.name = std::string(name_of(part)),
              .is_reported = overlap(part, with.request.on),
              .is_by_name = input.hash.empty()};
    }
    names += (names.empty() ? "" : "; ") + input.text();
  }
  return {.name = names.empty() ? "unknown" : names};
}

void add_plans(std::span<const NamedPlan> plans, const Comparing& with, Comparison& comparison) {
  for (const auto& [name, plan] : plans) {
    const Cluster &own = plan.cluster, &common = with.cluster();
    C2R_REQUIRE(own.num_nodes == common.num_nodes && own.ranks_per_node == common.ranks_per_node,
                kInvalidArgument, "{} is for a cluster of {}x{} ranks, but {}x{} are compared",
                name, own.num_nodes, own.ranks_per_node, common.num_nodes, common.ranks_per_node);
    try {
      check_fits(plan, with.header(), with.path);
    } catch (const Error& e) {
      C2R_THROW(kInvalidArgument, "{}: {}", name, e.what());
    }
    if (const auto wasted = wasted_slots_text(plan)) {
      comparison.notes.push_back(fmt::format("{}: {}", name, *wasted));
    }
    FittedTokens fitted = fitted_on(plan, with);
    comparison.entries.push_back({.name = name,
                                  .kind = "plan",
                                  .fitted_on = std::move(fitted.name),
                                  .is_fitted = fitted.is_reported,
                                  .is_by_name = fitted.is_by_name,
                                  .placements = placements_for(with.on, plan)});
  }
}

// @returns lower bounds of the copies of each layer with so many slots. The search is short,
//          because the bound depends only on the tokens. [num_layers]
std::vector<double> copies_bounds(const Comparing& with, std::int32_t slots_per_rank) {
  std::vector<double> bounds;
  with.progress.begin("bounding copies");
  for (const OptimizedPlacement& layer : optimize_placements(
           with.header().num_layers(), [&](std::int64_t l) { return token_sets_of(with.on, l); },
           with.cluster(), {},
           {.effort = 0.01,
           .redundant_slots_per_rank = slots_per_rank - with.least_slots_per_rank(),
           .num_threads = with.request.num_threads},
           with.progress)) {
    bounds.push_back(layer.copy_cost_bound);
  }
  return bounds;
}

void predict_entries(const Comparing& with, Comparison& comparison) {
  std::map<std::int32_t, std::vector<double>> bounds;  // by slots per rank
  with.progress.begin("counting what it is compared with");
  comparison.base =
      predict_base(with.on, with.request.predict, with.request.num_threads, with.progress)
          .prediction;
  const bool has_plans = std::ranges::count(comparison.entries, "plan", &ComparisonEntry::kind) > 0;
  std::optional<ResampledPrediction> resampled_base;
  if (has_plans) {
    resampled_base =
        resample_base(with.on, with.request.predict, with.request.num_threads, with.progress);
  }
  for (ComparisonEntry& entry : comparison.entries) {
    with.progress.begin("counting " + entry.name);
    WaterfallStep step = predict_step(entry.name, with.on, entry.placements, with.request.predict,
                                      with.request.num_threads, with.progress);
    entry.prediction = std::move(step.prediction);
    for (const Volume& volume : step.volumes) {
      entry.jain_index.push_back(jain_index(volume.choices));
    }
    if (entry.kind == "plan" && resampled_base) {
      entry.saved = saved_intervals(
          resampled_base, resample_prediction(with.on, entry.placements, with.request.predict,
                                              with.request.num_threads, with.progress));
    }
    if (!with.request.bounds_copies) continue;
    std::vector<double> of_entry;
    for (const Placement& placement : entry.placements) {
      const std::int32_t slots = placement.slots_per_rank();
      if (!bounds.contains(slots)) bounds[slots] = copies_bounds(with, slots);
      of_entry.push_back(bounds[slots][of_entry.size()]);
    }
    entry.copies_bound = mean_over_layers(of_entry);
  }
}

Comparison compare_all(const Comparing& with, std::span<const NamedPlan> plans) {
  const CompareRequest& request = with.request;
  C2R_REQUIRE(with.has_tokens() || (!request.num_front_points && !request.bounds_copies),
              kInvalidArgument,
              "{} holds counts: a front and bounds need the choices of each token", with.path);
  Comparison comparison;
  comparison.layer_indices = with.header().layer_indices;
  for (const NamedPlan& named : plans) {
    const auto bound = max_imbalance_of(named.plan);
    if (bound)
      comparison.max_imbalance = std::min(*bound, comparison.max_imbalance.value_or(*bound));
  }
  add_baselines(with, comparison);
  add_plans(plans, with, comparison);
  if (request.num_front_points) add_front(with, comparison);
  C2R_REQUIRE(!comparison.entries.empty(), kInvalidArgument, "there is nothing to compare{}",
              comparison.left_out.empty() ? "" : ": " + comparison.left_out[0]);
  predict_entries(with, comparison);
  return comparison;
}

}  // namespace

Comparison compare(const Trace& trace, std::span<const NamedPlan> plans,
                   const CompareRequest& request, Progress& progress) {
  check_compare_request(request);
  return compare_all({.on = routed_tokens_of(trace, request.on),
                      .fit = routed_tokens_of(trace, request.fit),
                      .request = request,
                      .progress = progress,
                      .path = trace.path(),
                      .hash = content_hash(trace)},
                     plans);
}

Comparison compare(const CollaborationStatistics& statistics, std::string_view name,
                   std::span<const NamedPlan> plans, const CompareRequest& request,
                   Progress& progress) {
  check_compare_request(request);
  C2R_REQUIRE(request.on == SequencePart::kAll && request.fit == SequencePart::kAll,
              kInvalidArgument, "{} holds counts, which are of all sequences, not of {}", name,
              name_of(request.on == SequencePart::kAll ? request.fit : request.on));
  CompareRequest of_counts = request;
  // The only rule for which pair counts say what replicas serve.
  of_counts.predict.traffic.replica_rule = ReplicaRule::kLocalFirst;
  const RoutedTokens counts = routed_tokens_of(statistics, name);
  return compare_all({.on = counts,
                      .fit = counts,
                      .request = of_counts,
                      .progress = progress,
                      .path = std::string(name),
                      .hash = {}},
                     plans);
}

std::vector<Plan> front_plans(const Trace& trace, const Comparison& comparison,
                              const CompareRequest& request) {
  Provenance provenance{.c2r_version = version_text(),
                        .seed = request.seed,
                        .inputs = {{.role = "trace",
                                    .name = trace.path(),
                                    .hash = content_hash(trace),
                                    .part = request.fit}},
                        .options = {{"fit", std::string(name_of(request.fit))},
                                    {"redundant_slots", double(request.redundant_slots_per_rank)},
                                    {"pareto", double(request.num_front_points.value_or(0))},
                                    {"effort", request.effort}},
                        .ended_by = "work"};
  std::vector<Plan> plans;
  for (const ComparisonEntry& entry : comparison.entries) {
    if (entry.kind != "front") continue;
    provenance.method = "optimize, " + entry.name;
    plans.push_back(
        plan_of(trace.header(), request.predict.traffic.cluster, entry.placements, provenance));
  }
  return plans;
}

}  // namespace c2r
