// Predicts copies, imbalance and times of a placement of all layers on the tokens of a trace.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/core/progress.h"
#include "c2r/placement/cost/layer_time.h"
#include "c2r/placement/cost/reach.h"
#include "c2r/placement/cost/volume.h"
#include "c2r/plan/plan.h"
#include "c2r/plan/routed_tokens.h"
#include "c2r/trace/sequence_split.h"
#include "c2r/trace/trace.h"

namespace c2r {

struct PredictRequest {
  TrafficModel traffic;
  std::optional<LayerTimeOptions> layer_time;  // to predict times
  /// What savings are measured against: contiguous experts, sent as `traffic` says, under this
  /// name, such as "SGLang, DeepEP normal". Empty: contiguous experts sent per-expert.
  std::string base;
  // Of Homes::kSignature: the sequences that are assigned together, as in assign_homes().
  std::int64_t home_window = 0;
};

/// @param name of the file with the header, for messages
/// @throws Error(kInvalidArgument) if the plan is for another model than the header
void check_fits(const Plan& plan, const TraceHeader& header, std::string_view name);

/// Counts the copies of `placements` on the tokens of `trace` in `ranges`.
/// @param placements [num_layers]
/// @throws Error(kInvalidArgument) if the placements do not fit the trace or the cluster
/// @throws Error(kInvalidFile) if the trace holds an invalid choice
///
/// Cost: count_reach().
Prediction predict(const Trace& trace, std::span<const TokenRange> ranges,
                   std::span<const Placement> placements, const PredictRequest& request,
                   int num_threads, Progress& progress);

struct WaterfallStep {
  Prediction prediction;
  std::vector<Volume> volumes;            // [num_layers], the exact counts of the prediction
  std::vector<PredictedLayerTime> times;  // [num_layers], or empty
};

/// @param name of the placements, for tables
/// @param reach_of_layers of `tokens`, counted as `request.traffic` says. [num_layers]
WaterfallStep predict_reach(std::string name, const RoutedTokens& tokens,
                            std::span<const Reach> reach_of_layers, const PredictRequest& request);

/// Counts the copies of `placements` on `tokens`.
/// @param name of the placements, for tables
/// @throws as reach_of()
WaterfallStep predict_step(std::string name, const RoutedTokens& tokens,
                           std::span<const Placement> placements, const PredictRequest& request,
                           int num_threads, Progress& progress);

/// Counts what savings are measured against, as the request says.
/// @throws as reach_of()
WaterfallStep predict_base(const RoutedTokens& tokens, const PredictRequest& request,
                           int num_threads, Progress& progress);

/// Tokens that were routed with the constraint, and the plan that they are counted under: the one
/// that was made for them, or that of the other steps. Both are borrowed.
struct ConstrainedTokens {
  const RoutedTokens& tokens;
  const Plan& plan;
};

/// Counts tokens that were routed by another rule, under all slots of their plan. Predicted times
/// are for as many tokens as in `first`, the first step that the result is compared with.
/// @param name of the step
/// @throws as reach_of()
WaterfallStep predict_constrained(std::string name, const ConstrainedTokens& constrained,
                                  const WaterfallStep& first, const PredictRequest& request,
                                  int num_threads, Progress& progress);

/// Predicts what each part of a plan saves. Each step changes one thing:
///   "per-expert"     contiguous placement, one copy for every choice, as MegaBlocks sends
///   "deduplication"  one copy per rank or per node, by the mode of the request. With another mode
///                    the step has the name of the mode, and it is left out if nothing changes
///   Where the request names its base, that is the first step in place of these two.
///   "placement"      the placement of the plan with one slot for each expert: the slot that serves
///                    most of its choices in the next step (keep_main_slots()), so that ranks may
///                    hold different numbers of experts
///   "replicas"       all slots of the plan; only if the plan has replicas
///   "constraint"     predict_constrained() of `constrained`; only if given
///   "homes"          only with Homes::kSignature: all slots of the plan, and homes as its
///                    signature chooses them by the first tokens of a sequence, which run on the
///                    ranks in turn (homes/assign_homes.h). The steps before have uniform homes
/// Where only loads are known, the steps are "contiguous" and "placement", whose copies are
/// unknown; replicas serve equal shares of their expert's load.
/// @throws as predict() and reach_from_pairs()
/// @throws Error(kInvalidArgument) if a plan is for another model, or for Homes::kSignature if it
///         has no signature, the tokens are no trace, or constrained tokens are given
std::vector<WaterfallStep> predict_waterfall(const Plan& plan, const RoutedTokens& tokens,
                                             const ConstrainedTokens* constrained,
                                             const PredictRequest& request, int num_threads,
                                             Progress& progress);

/// @returns the mean of a prediction's column; 0 of an empty one
double mean_over_layers(std::span<const double> column);

/// @returns the mean over layers of the copies on the wire, where a copy between nodes counts
///          node_copy_weight(): what the optimizer minimizes
double link_cost_per_token(const Prediction& prediction, const Cluster& cluster);

/// @returns how much slower the link between two nodes is than that within one
double node_copy_weight(const Cluster& cluster);

/// @returns the bytes of a token on the wire, dispatch and combine together: the mean over layers
double wire_bytes_per_token(const Prediction& prediction, const CopyFormat& format);

/// @returns the placements of the plan. [num_layers]
std::vector<Placement> placements_of(const Plan& plan);

/// @returns the same for predictions on these tokens: where only loads are known, wasted slots hold
///          their experts and serve a share, as in engines that choose among slots
std::vector<Placement> placements_for(const RoutedTokens& tokens, const Plan& plan);

/// @returns contiguous placements with as few slots as hold all experts. [num_layers]
std::vector<Placement> contiguous_placements(const TraceHeader& header, const Cluster& cluster);

}  // namespace c2r
