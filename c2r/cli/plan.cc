// `c2r plan`: experts to slots of ranks, from a trace.
#include "c2r/plan/plan.h"

#include <algorithm>
#include <cmath>
#include <iostream>
#include <memory>

#include "c2r/cli/app.h"
#include "c2r/cli/collaborator_check.h"
#include "c2r/cli/content_hash.h"
#include "c2r/cli/output.h"
#include "c2r/cli/plan_search.h"
#include "c2r/cli/predictions.h"
#include "c2r/cli/progress_line.h"
#include "c2r/cli/version.h"
#include "c2r/collaboration/collaborators.h"
#include "c2r/core/enum_names.h"
#include "c2r/core/error.h"
#include "c2r/core/parallel.h"
#include "c2r/placement/baselines/baselines.h"
#include "c2r/plan/predict.h"
#include "c2r/trace/trace_chunks.h"

namespace c2r::cli {
namespace {

constexpr std::string_view kOptimize = "optimize";

struct PlanOptions : SearchOptions {
  std::string trace, cluster, output, fit = "all", method = std::string(kOptimize);
  std::int32_t top_t = 0;
};

// The tokens of a plan: those that it is fitted on and those that are reported.
struct PlanTokens {
  Trace trace;
  Cluster cluster;
  SequencePart part;
  std::vector<TokenRange> fitted, reported;
};

void check_method(const std::string& method) {
  std::vector<std::string_view> names = {kOptimize};
  for (const Baseline& baseline : baselines()) names.push_back(baseline.name);
  if (std::ranges::count(names, method) == 0) refuse_name("a method is", names, method);
}

// All that can be wrong is said before the search, which may take long.
void check_options(const CLI::App& command, const PlanOptions& options) {
  check_method(options.method);
  if (options.method != kOptimize) refuse_search_options(command, options.method);
  C2R_REQUIRE(options.num_groups == 0 || options.method == kOptimize || options.method == "eplb",
              kInvalidArgument, "--num-groups is for the methods optimize and eplb, not {}",
              options.method);
  check_output(options.output, {options.trace, options.cluster});
}

void check_top_t(const TraceHeader& header, std::int32_t top_t) {
  const std::int32_t least = std::max(header.top_k - 1, 1);
  C2R_REQUIRE(top_t == 0 || (least <= top_t && top_t < header.num_experts), kInvalidArgument,
              "--top-t {} is not in [{}, {}]", top_t, least, header.num_experts - 1);
}

PlanTokens read_tokens(const PlanOptions& options) {
  const SequencePart part = parse_sequence_part(options.fit);
  Trace trace(options.trace);
  check_top_t(trace.header(), options.top_t);
  auto fitted = tokens_of(trace, part), reported = tokens_of(trace, other_part(part));
  return {.trace = std::move(trace),
          .cluster = read_cluster(options.cluster),
          .part = part,
          .fitted = std::move(fitted),
          .reported = std::move(reported)};
}

std::vector<Placement> by_baseline(const PlanOptions& options, const PlanTokens& tokens) {
  const std::int32_t num_experts = tokens.trace.header().num_experts;
  const std::int32_t ep_size = tokens.cluster.ep_size();
  ProgressLine progress("placing experts");
  return place_layers(
      options.method, count_coactivation(tokens.trace, tokens.fitted, options.num_threads),
      {.cluster = tokens.cluster,
       .slots_per_rank = (num_experts + ep_size - 1) / ep_size + options.redundant_slots,
       .num_groups = std::max(options.num_groups, 1),
       .seed = options.seed},
      progress);
}

// The constraint's lists come from the fitted tokens, as the placement does. Counted before the
// search, which may take long: there may be nothing to list.
std::vector<CollaborationMatrix> count_pairs(const PlanTokens& tokens, const PlanOptions& options) {
  if (options.top_t == 0) return {};
  auto counts = count_coactivation(tokens.trace, tokens.fitted, options.num_threads);
  check_observed_collaborators(tokens.trace.header(), counts, options.top_t);
  return counts;
}

void add_lists(std::span<const CollaborationMatrix> counts, std::int32_t top_t, Plan& plan) {
  if (counts.empty()) return;
  plan.top_t = top_t;
  for (std::size_t layer = 0; layer < plan.layers.size(); ++layer) {
    const auto ranked = rank_collaborators(counts[layer]);
    Matrix<ExpertId>& lists = plan.layers[layer].collaborators;
    lists = Matrix<ExpertId>(plan.num_experts, top_t);
    for (std::int64_t e = 0; e < ranked.rows(); ++e) {
      std::ranges::copy_n(ranked.row(e).begin(), top_t, lists.row(e).begin());
    }
  }
}

void add_predictions(const PlanTokens& tokens, int num_threads, Plan& plan) {
  const PredictRequest request{.reach = {.cluster = tokens.cluster, .rule = kPlannedRule},
                               .copy_mode = default_copy_mode(tokens.cluster)};
  ProgressLine progress("predicting");
  const RoutedTokens reported{.trace = &tokens.trace,
                              .ranges = tokens.reported,
                              .name = reported_tokens(tokens.trace.path(), tokens.part)};
  for (WaterfallStep& step :
       predict_waterfall(plan, reported, nullptr, request, num_threads, progress)) {
    plan.predictions.push_back(std::move(step.prediction));
  }
}

// Nobody asked for these replicas.
std::string remainder_text(const PlanTokens& tokens) {
  const std::int32_t num_experts = tokens.trace.header().num_experts;
  const std::int32_t ep_size = tokens.cluster.ep_size();
  const std::int32_t num_left = (ep_size - num_experts % ep_size) % ep_size;
  if (num_left == 0) return "";
  return fmt::format("{} experts do not divide over {} ranks: the {} left hold{} {}\n", num_experts,
                     ep_size, num_left == 1 ? "slot" : fmt::format("{} slots", num_left),
                     num_left == 1 ? "s" : "", num_left == 1 ? "a replica" : "replicas");
}

// Where contiguous experts make fewer copies than the plan on the reported tokens: why. The table
// alone would look like a mistake.
std::string contiguous_text(const PlanTokens& tokens, const SearchResult& searched,
                            const Plan& plan) {
  const auto step = std::ranges::find(plan.predictions, "deduplication", &Prediction::placement);
  if (mean(step->copies_per_token) >= mean(plan.predictions.back().copies_per_token)) return "";
  const auto contiguous = contiguous_placements(tokens.trace.header(), tokens.cluster);
  double copies = 0, planned = 0, imbalance = 1;
  for (std::int64_t layer = 0; layer < plan.num_layers(); ++layer) {
    const auto met =
        measure_placement(collect_token_sets(tokens.trace, layer, tokens.fitted), tokens.cluster,
                          searched.objective, contiguous[std::size_t(layer)]);
    copies += met.copy_cost / static_cast<double>(plan.num_layers());
    planned +=
        searched.layers[std::size_t(layer)].copy_cost / static_cast<double>(plan.num_layers());
    imbalance = std::max(imbalance, met.imbalance);
  }
  const auto& bound = searched.objective.max_imbalance;
  if (copies >= planned || !bound || imbalance <= *bound) {
    return fmt::format(
        "contiguous experts make fewer copies here; on the fitted tokens, where they "
        "cost {:.4f}, the plan costs {:.4f}\n",
        copies, planned);
  }
  return fmt::format(
      "the bound of {:.4g} on imbalance costs copies: on the fitted tokens {:.4f}, where "
      "contiguous "
      "experts make {:.4f} with an imbalance of up to {:.4f}, which --max-imbalance {:.2f} "
      "allows\n",
      *bound, planned, copies, imbalance, std::ceil(100 * imbalance) / 100);
}

Provenance provenance_of(const PlanOptions& options) {
  return {.c2r_version = version_text(),
          .method = options.method,
          .seed = options.seed,
          .inputs = {{"trace", options.trace + ", " + options.fit, content_hash(options.trace)}},
          .options = {{"fit", options.fit},
                      {"redundant_slots", static_cast<double>(options.redundant_slots)}}};
}

std::string provenance_text(const Provenance& provenance) {
  std::string text = fmt::format("method {}, seed {}", provenance.method, provenance.seed);
  for (const auto& [name, value] : provenance.options) {
    std::visit([&, &key = name](const auto& as) { text += fmt::format(", {} {}", key, as); },
               value);
  }
  if (provenance.ended_by == "work") text += "; all of the search was done";
  if (provenance.ended_by == "seconds") text += "; cut short by --seconds: the best found is kept";
  if (provenance.ended_by == "interrupt") text += "; interrupted: the best found is kept";
  return text + "\n";
}

void make_plan(const PlanOptions& options) {
  const PlanTokens tokens = read_tokens(options);
  const auto pairs = count_pairs(tokens, options);
  Provenance provenance = provenance_of(options);
  SearchResult searched;
  std::vector<Placement> placements;
  if (options.method == kOptimize) {
    searched = search_placements(options, tokens.trace, tokens.fitted, tokens.cluster);
    for (const OptimizedPlacement& layer : searched.layers) placements.push_back(layer.placement);
    std::ranges::move(resolved_options(options, searched.objective),
                      std::back_inserter(provenance.options));
    provenance.ended_by = searched.ended_by;
  } else {
    placements = by_baseline(options, tokens);
  }

  Plan plan =
      plan_of(tokens.trace.header(), tokens.cluster, std::move(placements), std::move(provenance));
  add_lists(pairs, options.top_t, plan);
  add_predictions(tokens, options.num_threads, plan);
  write_plan(plan, options.output);
  std::cout << prediction_table(plan.predictions, plan.cluster, std::nullopt);
  if (!searched.layers.empty()) {
    std::cout << reached_text(searched.objective, searched.layers)
              << contiguous_text(tokens, searched, plan);
  }
  std::cout << remainder_text(tokens) << provenance_text(plan.provenance)
            << fmt::format("{}: {} layers, {} slots on each of {} ranks\n", options.output,
                           plan.num_layers(), plan.layers[0].placement.slots_per_rank(),
                           tokens.cluster.ep_size());
}

void add_inputs(CLI::App& command, PlanOptions& options) {
  command.add_option("trace", options.trace, "the routing trace to fit")->required();
  command.add_option("--cluster", options.cluster, kClusterHelp)->required()->type_name("CLUSTER");
  add_output(command, options.output, "the plan to write")->required();
  command
      .add_option("--fit", options.fit,
                  "the sequences to fit: all, even, odd, first-half, second-half; the others are "
                  "reported on")
      ->capture_default_str()
      ->type_name("PART");
}

void add_placement_options(CLI::App& command, PlanOptions& options) {
  command
      .add_option("--redundant-slots", options.redundant_slots,
                  "slots of each rank for replicas of busy experts")
      ->capture_default_str()
      ->check(in_range(0, 1024))
      ->type_name("N");
  command
      .add_option("--top-t", options.top_t,
                  "also put the top-T collaborators of the fitted tokens into the plan")
      ->check(in_range(1, 1024))
      ->type_name("T");
  command
      .add_option("--num-groups", options.num_groups,
                  "group-limited routing: keep each of these groups on one node")
      ->check(in_range(1, 1024))
      ->type_name("N");
  command
      .add_option(
          "--method", options.method,
          "optimize, or a baseline: contiguous, round-robin, random, eplb, affinity, grace, "
          "exhaustive")
      ->capture_default_str()
      ->type_name("NAME");
  command.add_option("--seed", options.seed, "of the search")
      ->check(in_range(0, INT64_MAX))
      ->capture_default_str()
      ->type_name("N");
}

}  // namespace

void add_plan(CLI::App& app) {
  auto* const command = app.add_subcommand("plan", "place experts so that tokens reach few ranks");
  auto options = std::make_shared<PlanOptions>();
  add_inputs(*command, *options);
  add_placement_options(*command, *options);
  add_search_options(*command, *options);
  add_threads(*command, options->num_threads);
  command->footer(
      "Example:\n"
      "  c2r plan trace.safetensors --cluster 1x2 --fit even -o plan.json\n"
      "  c2r plan trace.safetensors --cluster 1x2 --minimize imbalance --max-copies 1.5 -o b.json");
  command->callback([command, options] {
    check_options(*command, *options);
    make_plan(*options);
  });
}

}  // namespace c2r::cli
