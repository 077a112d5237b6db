// Makes a plan: checks the request, has experts placed, lists collaborators, has the plan counted,
// and adds provenance.
#include "c2r/plan/make_plan.h"

#include <fmt/ranges.h>

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
#include "c2r/plan/homes/fit_homes.h"
#include "c2r/plan/homes/token_homes.h"
#include "c2r/plan/plan_search_internal.h"
#include "c2r/plan/prediction/count_plan_internal.h"
#include "c2r/plan/prediction/time_left.h"

namespace c2r {
namespace {

using internal::PlanTokens;

void check_scenario_request(const PlanRequest& request) {
  if (request.scenarios.empty()) return;
  C2R_REQUIRE(request.method == kOptimizeMethod, kInvalidArgument,
              "scenarios are for the method optimize, not {}", request.method);
  C2R_REQUIRE(request.goal.bound_on == BoundOn::kFitted, kInvalidArgument,
              "scenarios take no bound on unseen tokens: they are what the bound is to hold in");
  C2R_REQUIRE(!request.from || !request.from->max_moves, kInvalidArgument,
              "a bound on moves takes no scenarios");
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
  check_scenario_request(request);
  if (!request.from) return;
  check_running(*request.from, header, request.cluster,
                internal::slots_per_rank_of(request, header));
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
      .inputs = tokens.inputs,
      .options = {{"fit", tokens.fit},
                  {"redundant_slots", static_cast<double>(request.redundant_slots_per_rank)}}};
  if (!request.scenarios.empty()) provenance.options.push_back({"scenarios", request.scenarios});
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

// Aligns the labels of ranks over layers.
// @returns the signature for them
std::optional<HomeSignature> align_homes(const PlanTokens& tokens, const PlanRequest& request,
                                         Progress& progress, std::vector<Placement>& placements) {
  if (!request.home_tokens) return std::nullopt;
  std::vector<Placement> without_repeats = placements;
  for (Placement& placement : without_repeats) empty_wasted_slots(placement.slots);
  FittedHomes fitted = fit_homes(tokens.fitted, without_repeats, request.cluster,
                                 *request.home_tokens, request.num_threads, progress);
  for (std::size_t layer = 0; layer < placements.size(); ++layer) {
    placements[layer] = relabelled(placements[layer], fitted.label_of[layer]);
  }
  if (request.has_token_weights) {
    fitted.signature.token_weights =
        fit_token_weights(tokens.fitted, placements, request.cluster, progress);
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

// Places the experts by the method of the request.
// @param made gets what the method says of its result, and `provenance` the options as resolved
std::vector<Placement> placements_by_method(const PlanTokens& tokens, const PlanRequest& request,
                                            const PlanHooks& hooks, Progress& progress,
                                            MadePlan& made, Provenance& provenance) {
  if (request.method != kOptimizeMethod) {
    auto placements = internal::placements_by_baseline(tokens, request, hooks, progress);
    if (request.method == kBalanceMethod) made.balance = balance_of(tokens, request, placements);
    keep_moves_few(request, placements);
    return placements;
  }
  auto found = request.from && request.from->max_moves
                   ? internal::replan_placements(tokens.fitted, request, progress)
                   : internal::search_placements(tokens.fitted, request, hooks, progress);
  std::vector<Placement> placements;
  for (const OptimizedPlacement& layer : found.layers) placements.push_back(layer.placement);
  keep_moves_few(request, placements);
  std::ranges::move(resolved_options(request, found.objective),
                    std::back_inserter(provenance.options));
  provenance.ended_by = found.ended_by;
  if (!found.is_judged) made.left_out.emplace_back("judging bounds in the order of the tokens");
  made.search = report_of(std::move(found), request.goal);
  return placements;
}

MadePlan make_plan_of(const PlanTokens& tokens, const PlanRequest& request,
                      const PlanHooks& hooks) {
  const auto started = LimitedProgress::Clock::now();
  const TraceHeader& header = tokens.header();
  check_request(request, header, hooks);
  C2R_REQUIRE(!tokens.fitted.has_loads_only() ||
                  (request.method != kOptimizeMethod && !request.top_t && !request.engine),
              kInvalidArgument,
              "{}: loads do not say which experts are chosen together, so copies, collaborators "
              "and what an engine sends are unknown: take the method balance or eplb, or a trace",
              tokens.fitted.name);
  C2R_REQUIRE(!request.has_token_weights || request.home_tokens, kInvalidArgument,
              "token weights are a part of the signature of homes, which is not asked for");
  if (request.has_token_weights) check_has_token_ids(tokens.fitted);
  NoProgress silent;
  Progress& progress = hooks.progress != nullptr ? *hooks.progress : silent;
  const auto pairs = pairs_to_list(tokens, request, hooks);
  Provenance provenance = provenance_of(tokens, request);
  MadePlan made;
  auto placements = placements_by_method(tokens, request, hooks, progress, made, provenance);
  LimitedProgress limited(progress, started, request.seconds, hooks.stop);
  TimeLeft left(limited);
  std::optional<HomeSignature> signature;
  if (request.home_tokens) {
    left.run("the signature of homes",
             [&] { signature = align_homes(tokens, request, limited, placements); });
  }
  for (std::size_t layer = 0; made.search && layer < placements.size(); ++layer) {
    made.search->layers[layer].placement = placements[layer];
  }
  made.plan = plan_of(header, request.cluster, std::move(placements), std::move(provenance));
  if (request.top_t)
    add_lists(collaborators_of_layers(pairs, *request.top_t), *request.top_t, made.plan);
  if (signature) made.plan.homes = PlanHomes{.sequences = {}, .signature = std::move(signature)};
  internal::count_plan(tokens, request, left, made);
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

std::string left_out_text(const MadePlan& made) {
  if (made.left_out.empty()) return "";
  return fmt::format(
      "not counted, because the time was over or the plan was to end: {}; c2r simulate "
      "counts it later",
      fmt::join(made.left_out, ", "));
}

namespace {

// @param parts of the trace: the tokens of each trace that it was joined from
MadePlan make_plan_of_trace(const Trace& trace, std::span<const TokenRange> parts,
                            PlanTokens tokens, const PlanRequest& request, const PlanHooks& hooks) {
  tokens.fitted.trace = tokens.reported.trace = &trace;
  if (!request.scenarios.empty()) {
    tokens.scenarios = scenarios_of(trace, tokens.fitted.ranges, parts, request.scenarios);
    for (const Scenario& scenario : tokens.scenarios) {
      tokens.fitted.scenarios.push_back(scenario.ranges);
    }
  }
  return make_plan_of(tokens, request, hooks);
}

PlanInput input_of(const Trace& trace, SequencePart fit) {
  return {.role = "trace", .name = trace.path(), .hash = content_hash(trace), .part = fit};
}

}  // namespace

MadePlan make_plan(const Trace& trace, const PlanRequest& request, SequencePart fit,
                   const PlanHooks& hooks) {
  PlanTokens tokens{.fitted = {.ranges = tokens_of(trace, fit), .name = trace.path()},
                    .reported = {.ranges = tokens_of(trace, other_part(fit)),
                                 .name = reported_tokens_name(trace.path(), fit)},
                    .inputs = {input_of(trace, fit)},
                    .fit = std::string(name_of(fit)),
                    .scenarios = {}};
  const TokenRange whole{0, trace.num_tokens()};
  return make_plan_of_trace(trace, {&whole, 1}, std::move(tokens), request, hooks);
}

MadePlan make_plan(std::span<const Trace> traces, const PlanRequest& request, SequencePart fit,
                   const PlanHooks& hooks) {
  if (traces.size() == 1) return make_plan(traces[0], request, fit, hooks);
  const JoinedTraces joined = join_traces(traces);
  const std::string& name = joined.trace.path();
  PlanTokens tokens{.fitted = {.ranges = tokens_of(joined, traces, fit), .name = name},
                    .reported = {.ranges = tokens_of(joined, traces, other_part(fit)),
                                 .name = reported_tokens_name(name, fit)},
                    .inputs = {},
                    .fit = std::string(name_of(fit)),
                    .scenarios = {}};
  for (const Trace& trace : traces) tokens.inputs.push_back(input_of(trace, fit));
  return make_plan_of_trace(joined.trace, joined.parts, std::move(tokens), request, hooks);
}

MadePlan make_plan(const ModelTokenSets& fitted, const PlanRequest& request,
                   const ModelTokenSets* reported, const PlanHooks& hooks) {
  PlanTokens tokens{
      .fitted = tokens_of(fitted),
      .reported = tokens_of(reported != nullptr ? *reported : fitted),
      .inputs = {{.role = "token sets", .name = fitted.name, .hash = content_hash(fitted)}},
      .fit = std::string(name_of(SequencePart::kAll)),
      .scenarios = {}};
  C2R_REQUIRE(request.scenarios.empty(), kInvalidArgument,
              "scenarios need a trace with sequences, but {} has none", fitted.name);
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
                    .inputs = {{.role = "statistics", .name = std::string(name)}},
                    .fit = std::string(name_of(SequencePart::kAll)),
                    .scenarios = {}};
  C2R_REQUIRE(request.scenarios.empty(), kInvalidArgument,
              "scenarios need a trace with sequences, but {} has none", name);
  const bool searches = request.method == kOptimizeMethod;
  if (counts.has_loads_only() || !searches) return make_plan_of(tokens, request, hooks);
  const ModelTokenSets sets = token_sets_of_pairs(statistics, name);
  tokens.fitted = tokens_of(sets);
  if (statistics.header.top_k == 2) tokens.reported = tokens.fitted;
  tokens.reported.name = fmt::format("{} (the fitted ones)", counts.name);
  return make_plan_of(tokens, request, hooks);
}

}  // namespace c2r
