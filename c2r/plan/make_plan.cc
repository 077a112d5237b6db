// Makes a plan: checks the request, places experts, lists collaborators, predicts, and adds
// provenance.
#include "c2r/plan/make_plan.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "c2r/collaboration/collaborators.h"
#include "c2r/core/enum_names.h"
#include "c2r/core/error.h"
#include "c2r/core/version.h"
#include "c2r/placement/baselines/balance.h"
#include "c2r/placement/baselines/baselines.h"
#include "c2r/placement/moves/relabel.h"
#include "c2r/plan/content_hash.h"
#include "c2r/plan/engines/engine_traffic.h"
#include "c2r/plan/homes/fit_homes.h"
#include "c2r/plan/plan_search_internal.h"
#include "c2r/plan/prediction/load_variation.h"
#include "c2r/plan/prediction/predict.h"

namespace c2r {
namespace {

constexpr double kLooseBound = 2;  // no sample is too small for it

// The tokens of a plan: those that it is fitted on and those that are reported.
struct PlanTokens {
  RoutedTokens fitted, reported;
  PlanInput input;
  std::string fit;  // the name of the part

  // That of the model; fitted pairs of a larger top-k have a header of top-2.
  const TraceHeader& header() const { return reported.header(); }
};

std::int32_t slots_per_rank_of(const PlanRequest& request, const TraceHeader& header) {
  const std::int32_t ep_size = request.cluster.ep_size();
  return (header.num_experts + ep_size - 1) / ep_size + request.redundant_slots_per_rank;
}

void check_request(const PlanRequest& request, const TraceHeader& header, const PlanHooks& hooks) {
  check_cluster(request.cluster);
  check_plan_method(request.method);
  const bool searches = request.method == kOptimizeMethod;
  C2R_REQUIRE(!request.num_groups || searches || request.method == "eplb", kInvalidArgument,
              "num_groups is for the methods optimize and eplb, not {}", request.method);
  C2R_REQUIRE(request.redundant_slots_per_rank >= 0, kInvalidArgument,
              "redundant_slots_per_rank is {}, but must be at least 0",
              request.redundant_slots_per_rank);
  if (request.top_t) check_top_t(*request.top_t, header, hooks.top_t_name);
  if (searches) (void)objective_of(request);
  C2R_REQUIRE(!request.from || !request.home_tokens, kInvalidArgument,
              "the running plan decides the labels of ranks, so homes cannot align them");
  if (!request.from) return;
  check_running(*request.from, header, request.cluster, slots_per_rank_of(request, header));
  if (!request.from->max_moves) return;
  C2R_REQUIRE(searches, kInvalidArgument, "a bound on moves is for the method optimize, not {}",
              request.method);
  C2R_REQUIRE(request.goal.bound_on == BoundOn::kFitted, kInvalidArgument,
              "a bound on moves takes no bound on unseen tokens, only on the fitted ones");
}

// Counts pairs of the fitted tokens for the collaborator lists. This comes before the search, which
// may take long, because it fails if no token chose two experts.
std::vector<CollaborationMatrix> pairs_to_list(const PlanTokens& tokens, const PlanRequest& request,
                                               const PlanHooks& hooks) {
  if (!request.top_t) return {};
  auto counts = pair_counts_of(tokens.fitted, request.num_threads);
  const ShortLists lists =
      count_short_lists(tokens.fitted.header().layer_indices, counts, *request.top_t);
  if (lists.num_short > 0 && hooks.warn) {
    hooks.warn(short_lists_text(lists, *request.top_t, hooks.top_t_name));
  }
  return counts;
}

void add_lists(std::vector<Matrix<ExpertId>> lists, std::int32_t top_t, Plan& plan) {
  plan.top_t = top_t;
  for (std::size_t layer = 0; layer < plan.layers.size(); ++layer) {
    plan.layers[layer].collaborators = std::move(lists[layer]);
  }
}

std::vector<Placement> by_baseline(const PlanTokens& tokens, const PlanRequest& request,
                                   const PlanHooks& hooks, Progress& progress) {
  progress.begin("placing experts");
  std::vector<std::string> notes;
  auto placements = place_layers(request.method, pair_counts_of(tokens.fitted, request.num_threads),
                                 {.has_pairs = !tokens.fitted.has_loads_only(),
                                  .cluster = request.cluster,
                                  .slots_per_rank = slots_per_rank_of(request, tokens.header()),
                                  .num_groups = request.num_groups.value_or(1),
                                  .seed = request.seed},
                                 progress, &notes);
  for (const std::string& note : notes) {
    if (hooks.warn) hooks.warn(note);
  }
  return placements;
}

PredictRequest predict_request_of(const PlanTokens& tokens, const PlanRequest& request) {
  PredictRequest predicted{.traffic = default_traffic(request.cluster)};
  predicted.layer_time = layer_time_of(request.goal, request.cluster);
  if (request.engine) predicted = for_engine(*request.engine, predicted);
  // The only rule for which pair counts say what replicas serve.
  const bool is_from_pairs = tokens.reported.statistics != nullptr;
  if (is_from_pairs) predicted.traffic.replica_rule = ReplicaRule::kLocalFirst;
  return predicted;
}

BalanceReport balance_of(const PlanTokens& tokens, const PlanRequest& request,
                         std::span<const Placement> placements) {
  const auto counts = pair_counts_of(tokens.fitted, request.num_threads);
  const auto num_layers = static_cast<double>(placements.size());
  BalanceReport report{.imbalance = 0, .imbalance_bound = 0};
  for (std::size_t layer = 0; layer < placements.size(); ++layer) {
    const auto loads = expert_loads(counts[layer]);
    const Placement& placement = placements[layer];
    report.imbalance += imbalance_of_loads(placement, loads) / num_layers;
    report.imbalance_bound +=
        imbalance_bound_of_loads(loads, placement.ep_size(), std::ssize(placement.slots.all())) /
        num_layers;
  }
  return report;
}

void add_predictions(const PlanTokens& tokens, const PlanRequest& request, Progress& progress,
                     Plan& plan) {
  progress.begin("predicting");
  const PredictRequest predicted = predict_request_of(tokens, request);
  for (WaterfallStep& step : predict_waterfall(plan, tokens.reported, nullptr, predicted,
                                               request.num_threads, progress)) {
    plan.predictions.push_back(std::move(step.prediction));
  }
}

// What the plan saves of what the first prediction is of, on tokens that it was not fitted on.
std::optional<SavedIntervals> savings_of(const PlanTokens& tokens, const PlanRequest& request,
                                         Progress& progress, const Plan& plan) {
  if (tokens.fit == name_of(SequencePart::kAll)) return std::nullopt;
  return resample_savings(tokens.reported, placements_of(plan), predict_request_of(tokens, request),
                          request.num_threads, progress);
}

std::vector<PlanOption> resolved_goal(const PlanGoal& goal, const PlacementObjective& objective) {
  std::vector<PlanOption> resolved = {{"minimize", std::string(name_of(objective.goal))},
                                      {"rank_copy_cost", objective.rank_copy_cost},
                                      {"node_copy_cost", objective.node_copy_cost}};
  const auto add_if = [&](bool is_set, const char* name, const PlanOption::Value& value) {
    if (is_set) resolved.push_back({name, value});
  };
  add_if(objective.imbalance_weight > 0, "imbalance_weight", objective.imbalance_weight);
  const bool is_lowered = goal.bound_on == BoundOn::kUnseen;
  const double fitted = objective.max_imbalance.value_or(0);
  add_if(objective.max_imbalance.has_value(), "max_imbalance",
         is_lowered ? goal.max_imbalance.value_or(kDefaultMaxImbalance) : fitted);
  add_if(is_lowered, "bound_on", std::string(name_of(goal.bound_on)));
  add_if(is_lowered, "fitted_max_imbalance", fitted);
  add_if(objective.max_copy_cost.has_value(), "max_copies", objective.max_copy_cost.value_or(0));
  if (objective.goal != Goal::kTime) return resolved;
  resolved.push_back({"hidden", static_cast<double>(goal.hidden)});
  resolved.push_back({"intermediate", static_cast<double>(goal.intermediate)});
  resolved.push_back({"overlap", std::string(name_of(goal.overlap))});
  add_if(goal.batch_tokens.has_value(), "batch_tokens", double(goal.batch_tokens.value_or(0)));
  add_if(objective.copy_mode.has_value(), "copy_mode",
         std::string(name_of(objective.copy_mode.value_or(CopyMode::kPerRank))));
  return resolved;
}

// The goal, the bounds and the length of the search, for the provenance.
std::vector<PlanOption> resolved_options(const PlanRequest& request,
                                         const PlacementObjective& objective) {
  auto resolved = resolved_goal(request.goal, objective);
  resolved.push_back({"effort", request.effort});
  if (request.seconds) resolved.push_back({"seconds", *request.seconds});
  if (request.proves) resolved.push_back({"prove", 1.0});
  if (request.num_groups) resolved.push_back({"num_groups", double(*request.num_groups)});
  return resolved;
}

Provenance provenance_of(const PlanTokens& tokens, const PlanRequest& request) {
  Provenance provenance{
      .c2r_version = version_text(),
      .method = request.method,
      .seed = request.seed,
      .inputs = {tokens.input},
      .options = {{"fit", tokens.fit},
                  {"redundant_slots", static_cast<double>(request.redundant_slots_per_rank)}}};
  if (!request.from) return provenance;
  provenance.options.push_back({"from", request.from->name});
  if (request.from->max_moves) {
    provenance.options.push_back({"max_moves", double(*request.from->max_moves)});
  }
  return provenance;
}

SearchReport report_of(internal::FoundPlacements found, const PlanGoal& goal) {
  SearchReport report{.objective = found.objective, .layers = std::move(found.layers)};
  if (goal.bound_on == BoundOn::kUnseen) {
    report.unseen_max_imbalance = goal.max_imbalance.value_or(kDefaultMaxImbalance);
  }
  const auto num_layers = static_cast<double>(report.layers.size());
  for (const OptimizedPlacement& layer : report.layers) {
    report.mean_value += layer.value / num_layers;
    report.mean_value_bound += layer.value_bound / num_layers;
    report.num_proved_optimal += layer.is_proved_optimal ? 1 : 0;
    report.num_missed_bounds += layer.meets_bounds ? 0 : 1;
  }
  return report;
}

// @returns the prediction of contiguous experts whose copies are sent as the plan's are
const Prediction& contiguous_prediction(const Plan& plan) {
  return *std::ranges::find(plan.predictions, plan.predictions.back().copy_mode,
                            &Prediction::copy_mode);
}

// @returns the costs of contiguous experts on the fitted tokens, if they make fewer copies than the
//          plan on the reported ones; these costs explain why
std::optional<ContiguousReport> compare_with_contiguous(const PlanTokens& tokens,
                                                        const SearchReport& search,
                                                        const Plan& plan) {
  if (mean_over_layers(contiguous_prediction(plan).copies_per_token) >=
      mean_over_layers(plan.predictions.back().copies_per_token)) {
    return std::nullopt;
  }
  const auto contiguous = contiguous_placements(tokens.header(), plan.cluster);
  const auto num_layers = static_cast<double>(plan.num_layers());
  ContiguousReport report;
  for (std::int64_t layer = 0; layer < plan.num_layers(); ++layer) {
    const auto met = measure_placement(token_sets_of(tokens.fitted, layer), plan.cluster,
                                       search.objective, contiguous[std::size_t(layer)]);
    report.copy_cost += met.copy_cost / num_layers;
    report.planned_copy_cost += search.layers[std::size_t(layer)].copy_cost / num_layers;
    report.max_imbalance = std::max(report.max_imbalance, met.imbalance);
  }
  return report;
}

// Aligns the labels of ranks over layers.
// @returns the signature for them
std::optional<HomeSignature> align_homes(const PlanTokens& tokens, const PlanRequest& request,
                                         Progress& progress, std::vector<Placement>& placements) {
  if (!request.home_tokens) return std::nullopt;
  FittedHomes fitted = fit_homes(tokens.fitted, placements, request.cluster, *request.home_tokens,
                                 request.num_threads, progress);
  for (std::size_t layer = 0; layer < placements.size(); ++layer) {
    placements[layer] = relabelled(placements[layer], fitted.label_of[layer]);
  }
  return std::move(fitted.signature);
}

// Relabels ranks and slots so that few experts move from the plan that runs.
void keep_moves_few(const PlanRequest& request, std::vector<Placement>& placements) {
  if (!request.from) return;
  for (std::size_t layer = 0; layer < placements.size(); ++layer) {
    placements[layer] = with_fewest_moves(request.from->plan.layers[layer].placement,
                                          placements[layer], request.cluster);
  }
}

PlanMoves count_moves(const PlanTokens& tokens, const PlanRequest& request, const Plan& plan) {
  NoProgress silent;
  const PlanGoal& goal = request.goal;
  auto expert_bytes = request.from->expert_bytes;
  if (!expert_bytes && goal.hidden > 0 && goal.intermediate > 0) {
    expert_bytes = 3.0 * 2 * double(goal.hidden) * double(goal.intermediate);  // gated, in bf16
  }
  Prediction before = predict_step("running", tokens.reported, placements_of(request.from->plan),
                                   predict_request_of(tokens, request), request.num_threads, silent)
                          .prediction;
  return moves_of(request.from->plan, plan, std::move(before), plan.predictions.back(), goal.hidden,
                  expert_bytes);
}

// Predicts what engines do without the plan, with its slots, and compares.
PlanCheck check_made(const PlanTokens& tokens, const PlanRequest& request,
                     const SearchReport& search, const Plan& plan) {
  std::vector<Prediction> baselines = {contiguous_prediction(plan)};
  baselines[0].placement = "contiguous";
  NoProgress silent;
  PlanRequest eplb = request;
  eplb.method = "eplb";
  try {
    baselines.push_back(
        predict_step(eplb.method, tokens.reported, by_baseline(tokens, eplb, {}, silent),
                     predict_request_of(tokens, request), request.num_threads, silent)
            .prediction);
  } catch (const Error& e) {
    // EPLB cannot place every number of experts.
    if (e.code() != ErrorCode::kUnsupported) throw;
  }
  const auto bound =
      search.unseen_max_imbalance ? search.unseen_max_imbalance : search.objective.max_imbalance;
  const bool is_unseen = tokens.fit != name_of(SequencePart::kAll);
  PlanCheck check = check_predictions(plan.predictions.back(), std::move(baselines), plan.cluster,
                                      search.objective, is_unseen ? bound : std::nullopt);
  if (!bound || *bound >= kLooseBound) return check;
  const auto variation = load_variation(tokens.fitted, placements_of(plan), request.num_threads);
  if (variation) {
    check.sample_warning =
        sample_warning(*variation, *bound, request.goal.bound_on == BoundOn::kUnseen);
  }
  return check;
}

MadePlan make_plan_of(const PlanTokens& tokens, const PlanRequest& request,
                      const PlanHooks& hooks) {
  const TraceHeader& header = tokens.header();
  check_request(request, header, hooks);
  C2R_REQUIRE(!tokens.fitted.has_loads_only() ||
                  (request.method != kOptimizeMethod && !request.top_t && !request.engine),
              kInvalidArgument,
              "{}: loads do not say which experts are chosen together, so copies, collaborators "
              "and what an engine sends are unknown: take the method balance or eplb, or a trace",
              tokens.fitted.name);
  NoProgress silent;
  Progress& progress = hooks.progress != nullptr ? *hooks.progress : silent;
  const auto pairs = pairs_to_list(tokens, request, hooks);
  Provenance provenance = provenance_of(tokens, request);
  MadePlan made;
  std::vector<Placement> placements;
  std::optional<HomeSignature> signature;
  if (request.method == kOptimizeMethod) {
    auto found = request.from && request.from->max_moves
                     ? internal::replan_placements(tokens.fitted, request, progress)
                     : internal::search_placements(tokens.fitted, request, hooks, progress);
    for (OptimizedPlacement& layer : found.layers) placements.push_back(layer.placement);
    keep_moves_few(request, placements);
    signature = align_homes(tokens, request, progress, placements);
    for (std::size_t layer = 0; layer < placements.size(); ++layer) {
      found.layers[layer].placement = placements[layer];
    }
    std::ranges::move(resolved_options(request, found.objective),
                      std::back_inserter(provenance.options));
    provenance.ended_by = found.ended_by;
    made.search = report_of(std::move(found), request.goal);
  } else {
    placements = by_baseline(tokens, request, hooks, progress);
    if (request.method == kBalanceMethod) made.balance = balance_of(tokens, request, placements);
    keep_moves_few(request, placements);
    signature = align_homes(tokens, request, progress, placements);
  }
  made.plan = plan_of(header, request.cluster, std::move(placements), std::move(provenance));
  if (request.top_t)
    add_lists(collaborators_of_layers(pairs, *request.top_t), *request.top_t, made.plan);
  add_predictions(tokens, request, progress, made.plan);
  made.saved = savings_of(tokens, request, progress, made.plan);
  if (signature) {
    made.plan.homes = PlanHomes{.sequences = {}, .signature = std::move(signature)};
    made.homes = compare_homes(made.plan, tokens.reported, predict_request_of(tokens, request), 0,
                               request.num_threads, progress);
  }
  if (request.from) made.moves = count_moves(tokens, request, made.plan);
  if (!made.search) return made;
  made.search->contiguous = compare_with_contiguous(tokens, *made.search, made.plan);
  made.check = check_made(tokens, request, *made.search, made.plan);
  return made;
}

}  // namespace

void check_plan_method(std::string_view method) {
  std::vector<std::string_view> names = {kOptimizeMethod};
  std::ranges::copy(baseline_names(), std::back_inserter(names));
  if (std::ranges::count(names, method) == 0) refuse_name("a method is", names, method);
}

std::string reported_tokens_name(std::string_view trace, SequencePart fitted) {
  if (fitted == SequencePart::kAll) return fmt::format("{}, all (the fitted ones)", trace);
  return fmt::format("{}, {} (not fitted)", trace, name_of(other_part(fitted)));
}

MadePlan make_plan(const Trace& trace, const PlanRequest& request, SequencePart fit,
                   const PlanHooks& hooks) {
  const std::string fit_name(name_of(fit));
  const PlanTokens tokens{
      .fitted = {.trace = &trace, .ranges = tokens_of(trace, fit), .name = trace.path()},
      .reported = {.trace = &trace,
                   .ranges = tokens_of(trace, other_part(fit)),
                   .name = reported_tokens_name(trace.path(), fit)},
      .input = {.role = "trace", .name = trace.path(), .hash = content_hash(trace), .part = fit},
      .fit = fit_name};
  return make_plan_of(tokens, request, hooks);
}

MadePlan make_plan(const ModelTokenSets& fitted, const PlanRequest& request,
                   const ModelTokenSets* reported, const PlanHooks& hooks) {
  PlanTokens tokens{
      .fitted = tokens_of(fitted),
      .reported = tokens_of(reported != nullptr ? *reported : fitted),
      .input = {.role = "token sets", .name = fitted.name, .hash = content_hash(fitted)},
      .fit = std::string(name_of(SequencePart::kAll))};
  if (reported == nullptr) {
    tokens.reported.name = reported_tokens_name(fitted.name, SequencePart::kAll);
  }
  return make_plan_of(tokens, request, hooks);
}

MadePlan make_plan(const CollaborationStatistics& statistics, std::string_view name,
                   const PlanRequest& request, const PlanHooks& hooks) {
  const RoutedTokens counts = routed_tokens_of(statistics, name);
  PlanTokens tokens{.fitted = counts,
                    .reported = counts,
                    .input = {.role = "statistics", .name = std::string(name)},
                    .fit = std::string(name_of(SequencePart::kAll))};
  const bool searches = request.method == kOptimizeMethod;
  if (counts.has_loads_only() || !searches) return make_plan_of(tokens, request, hooks);
  const ModelTokenSets sets = token_sets_of_pairs(statistics, name);
  tokens.fitted = tokens_of(sets);
  if (statistics.header.top_k == 2) tokens.reported = tokens.fitted;
  tokens.reported.name = fmt::format("{} (the fitted ones)", counts.name);
  return make_plan_of(tokens, request, hooks);
}

}  // namespace c2r
