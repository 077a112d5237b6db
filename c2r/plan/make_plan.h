// Makes a plan: places the experts of every layer, lists collaborators and predicts what this
// saves.
//
//   const c2r::Trace trace("trace.safetensors");
//   const c2r::MadePlan made = c2r::make_plan(trace, {.cluster = {.ranks_per_node = 8}});
//   c2r::write_plan(made.plan, "plan.json");
//
// Tokens come from a trace, which may be in memory (trace/trace.h), or are given as token sets. A
// plan is fitted on part of the trace's sequences and reports on the others. The same arguments
// give the same plan, unless the search is cut short.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/core/progress.h"
#include "c2r/placement/optimize.h"
#include "c2r/plan/engines/engine.h"
#include "c2r/plan/homes/compare_homes.h"
#include "c2r/plan/plan.h"
#include "c2r/plan/plan_check.h"
#include "c2r/plan/plan_moves.h"
#include "c2r/plan/prediction/resample.h"
#include "c2r/plan/routed_tokens.h"
#include "c2r/plan/scenarios/scenarios.h"
#include "c2r/trace/sequence_split.h"
#include "c2r/trace/trace.h"

namespace c2r {

/// The method that searches; the others are the names of baseline_names().
inline constexpr std::string_view kOptimizeMethod = "optimize";

/// The bound on imbalance where copies alone are minimized and no bound is given.
inline constexpr double kDefaultMaxImbalance = 1.1;

/// The part of PlanRequest::seconds that the search may take.
inline constexpr double kSearchShare = 0.8;

/// The tokens on which PlanGoal::max_imbalance is to hold.
enum class BoundOn {
  kFitted,
  /// The placement is fitted with a lower bound, so that max_imbalance holds on other tokens, too:
  /// it is lowered by as much as placements of half of the fitted sequences miss it on the other
  /// half. Only for traces.
  kUnseen,
};

/// "fitted", "unseen".
std::string_view name_of(BoundOn bound_on);
/// @throws Error(kInvalidArgument), listing the names
BoundOn parse_bound_on(std::string_view name);

/// "copies", "imbalance", "time".
std::string_view name_of(Goal goal);
/// @throws Error(kInvalidArgument), listing the names
Goal parse_goal(std::string_view name);

/// The goal and the bounds of the search, in the terms of a user.
struct PlanGoal {
  Goal minimize = Goal::kCopies;
  double imbalance_weight = 0;          // kCopies: minimizes copies + weight x (imbalance - 1)
  std::optional<double> max_imbalance;  // a bound; kDefaultMaxImbalance for copies alone, else none
  BoundOn bound_on = BoundOn::kFitted;  // kUnseen only for kCopies
  std::optional<double> max_copies;     // only for kImbalance: a bound on the (weighted) copies
  // Values of a token in bf16, and the experts' inner width. Only for kTime, which needs a cluster
  // with device_flop_per_s; with other goals and such a cluster, times are predicted, too.
  std::int64_t hidden = 0, intermediate = 0;
  Overlap overlap = Overlap::kAdded;
  // Tokens of the batch whose time is predicted, on all ranks together; without it all tokens are
  // one batch.
  std::optional<std::int64_t> batch_tokens;
};

struct PlanRequest {
  Cluster cluster;
  std::string method = std::string(kOptimizeMethod);
  std::int32_t redundant_slots_per_rank = 0;  // for replicas, beyond those that hold all experts
  std::optional<std::int32_t> num_groups;     // of group-limited routing: optimize and eplb
  std::uint64_t seed = 0;                     // of the method and the predictions' ties
  // Predict what this engine sends, beside what it sends today; without it, beside per-expert. The
  // goal time is the time of its kernel.
  std::optional<EngineBackend> engine;
  std::optional<std::int32_t> top_t;  // also list as many collaborators of each expert
  // Aligns the labels of ranks over layers and adds a signature that looks at so many tokens of a
  // sequence (homes/fit_homes.h). Only for traces; not with `from`, which decides the labels.
  std::optional<std::int64_t> home_tokens;
  // With home_tokens: the signature has token weights, too (homes/token_homes.h). Only for traces
  // with token ids.
  bool has_token_weights = false;
  // The plan that runs: the new one gets the labels of ranks and slots with which the fewest
  // experts move, and the method optimize keeps a layer that it does not improve, if the slots are
  // as many, none is wasted and there are no groups. With max_moves, which is for the method
  // optimize, the placements that run are changed by replan() instead of being searched anew.
  std::optional<RunningPlan> from;
  int num_threads = 1;
  // Only for the method optimize:
  // How the fitted sequences are grouped into scenarios, such as "8" (scenarios/scenarios.h);
  // empty: not. The bound on imbalance, and the goals imbalance and time, are then of each layer's
  // worst scenario; copies are those of all tokens. Only for traces; neither with BoundOn::kUnseen
  // nor with RunningPlan::max_moves.
  std::string scenarios;
  PlanGoal goal;
  double effort = 1;  // as in OptimizeOptions
  // For the search, which ends after kSearchShare of it with the best so far, and all that is
  // counted afterwards: what is not done by then, or one second after the search, is left out.
  std::optional<double> seconds;
  bool proves = false;  // proves optima where a rank has up to 2e7 possible contents
};

/// How make_plan() reports to its caller while it works, and is stopped. Every part may be left
/// out.
struct PlanHooks {
  Progress* progress = nullptr;  // of the steps, each with units of its own
  // If set, the search ends as if its time were over, and what is counted after it one second
  // later; if set after the search, what is still to be counted is left out.
  const std::atomic<bool>* stop = nullptr;
  // Called before the search begins, and for what was repaired in the result of a baseline.
  std::function<void(const std::string& message)> warn;
  std::string_view top_t_name = "top_t";  // what the caller calls PlanRequest::top_t, for messages
};

/// Contiguous experts on the fitted tokens, where they make fewer copies than the plan on the
/// reported ones.
struct ContiguousReport {
  double copy_cost = 0, planned_copy_cost = 0;  // per token, the mean over layers
  double max_imbalance = 1;                     // of contiguous experts, over layers
};

/// The result of the search, over all layers.
struct SearchReport {
  PlacementObjective objective;  // with the bound on imbalance that was fitted with
  // The bound that was asked for, if the one fitted with was derived from it (BoundOn::kUnseen).
  std::optional<double> unseen_max_imbalance;
  std::vector<OptimizedPlacement> layers;       // [num_layers]
  double mean_value = 0, mean_value_bound = 0;  // OptimizedPlacement's, over layers
  std::int64_t num_proved_optimal = 0;          // layers
  std::int64_t num_missed_bounds = 0;           // layers
  std::optional<ContiguousReport> contiguous;
};

/// How even ranks are on the fitted loads, and can be: means over layers.
struct BalanceReport {
  double imbalance = 1, imbalance_bound = 1;
};

struct MadePlan {
  Plan plan;
  std::optional<SearchReport> search;    // of the method optimize
  std::optional<BalanceReport> balance;  // of the method balance
  std::optional<PlanCheck> check;        // of the method optimize
  std::optional<PlanMoves> moves;        // with PlanRequest::from
  // With PlanRequest::home_tokens: what homes save on the reported tokens.
  std::optional<HomesComparison> homes;
  // What the plan saves of the first prediction, where the reported tokens were not fitted.
  std::optional<SavedIntervals> saved;
  std::vector<ScenarioReport> scenarios;  // with PlanRequest::scenarios
  // What was not counted because the time was over: "the predictions". Without predictions,
  // Plan::predictions is empty.
  std::vector<std::string> left_out;
};

/// @returns one line of what was left out and what counts it, without a line feed; empty if nothing
///          was
std::string left_out_text(const MadePlan& made);

/// Fits a plan on part of a trace, and predicts what it saves on the other sequences, as
/// predict_waterfall() does; on the same sequences if `fit` is kAll.
/// @throws Error(kInvalidArgument) if the request contradicts itself or does not suit the model, or
///         if a part has no tokens
/// @throws Error(kInvalidFile) if the trace holds an invalid choice
/// @throws Error(kUnsupported) with the reason if the baseline cannot place the experts
///
/// Cost: optimize_placements(), three times on half of the tokens or all with BoundOn::kUnseen, and
/// count_reach() for each step of the waterfall and, where other tokens are reported, twice more.
MadePlan make_plan(const Trace& trace, const PlanRequest& request,
                   SequencePart fit = SequencePart::kAll, const PlanHooks& hooks = {});

/// Fits a plan on a part of each of several traces of one model, as on one trace that has the
/// sequences of all; so every token weighs the same.
/// @throws as above, and as join_traces()
MadePlan make_plan(std::span<const Trace> traces, const PlanRequest& request,
                   SequencePart fit = SequencePart::kAll, const PlanHooks& hooks = {});

/// Fits a plan on token sets, and predicts what it saves on `reported`, or on the fitted sets
/// without. Placements and lists are those of a trace with the same choices.
/// @throws as above, and Error(kInvalidArgument) for BoundOn::kUnseen, since sets have no sequences
MadePlan make_plan(const ModelTokenSets& fitted, const PlanRequest& request,
                   const ModelTokenSets* reported = nullptr, const PlanHooks& hooks = {});

/// The method for loads alone: it evens the loads of ranks (c2r/placement/baselines/balance.h).
inline constexpr std::string_view kBalanceMethod = "balance";

/// Fits a plan on counts. Pair counts of top-2 determine the tokens, so that this is make_plan() of
/// their sets. Of a larger top-k each pair is fitted as a token of two experts, and the predictions
/// are those of reach_from_pairs(), with the rule local-first. From loads alone, eplb, balance and
/// the methods that look at no token can place; the predictions have the imbalance, and copies are
/// unknown.
/// @param name of the counts: their file
/// @throws as above, and Error(kInvalidArgument) if loads alone are to be optimized
MadePlan make_plan(const CollaborationStatistics& statistics, std::string_view name,
                   const PlanRequest& request, const PlanHooks& hooks = {});

/// @throws Error(kInvalidArgument), listing the names, unless it is kOptimizeMethod or a baseline
void check_plan_method(std::string_view method);

/// @returns the objective of the optimizer for the goal
/// @throws Error(kInvalidArgument) if the goal contradicts itself or the cluster lacks a rate that
///         it needs
PlacementObjective objective_of(const PlanGoal& goal, const Cluster& cluster);
/// @returns the same for the request's goal; a time is that of its engine's kernel (kernel_of()),
///          if there is an engine and a copy mode describes the kernel
/// @throws as above
PlacementObjective objective_of(const PlanRequest& request);

/// @returns what predicts times for the goal: nothing unless hidden, intermediate and the cluster's
///          device_flop_per_s are known
std::optional<LayerTimeOptions> layer_time_of(const PlanGoal& goal, const Cluster& cluster);

/// @returns the name of the tokens that are reported on after fitting a part of a trace:
///          "t.safetensors, odd (not fitted)", or "..., all (the fitted ones)"
std::string reported_tokens_name(std::string_view trace, SequencePart fitted);

}  // namespace c2r
