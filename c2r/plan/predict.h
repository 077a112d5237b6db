// What a placement of all layers gives on the tokens of a trace: every number a user compares.
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
  std::optional<LayerTimeOptions> layer_time;  // for predicted times; a batch of all tokens if none
};

/// @throws Error(kInvalidArgument) if the plan is for another model than the header
/// @param name whose header it is, for messages
void check_fits(const Plan& plan, const TraceHeader& header, std::string_view name);

/// Counts `placements` [num_layers] on the tokens of `trace` in `ranges`.
/// @throws Error(kInvalidArgument) if they do not fit the trace or the cluster,
///         Error(kInvalidFile) if the trace holds an invalid choice
///
/// Cost: count_reach().
Prediction predict(const Trace& trace, std::span<const TokenRange> ranges,
                   std::span<const Placement> placements, const PredictRequest& request,
                   int num_threads, Progress& progress);

struct WaterfallStep {
  Prediction prediction;
  std::vector<Volume> volumes;  // [num_layers], the exact counts behind it
};

/// Where the savings come from, one step at a time; each step changes one thing:
///   "per-expert"     contiguous placement, one copy for every choice, as MegaBlocks sends
///   "deduplication"  one copy per rank, or per node, as the request's mode says; with other modes
///                    the step is called after them, and left out if nothing changes
///   "placement"      the plan's, each expert in one slot: that which serves most of its choices in
///                    the next step (keep_main_slots()), so that ranks may hold unequally many
///   "replicas"       every slot of the plan; only if it has replicas
///   "constraint"     the same on `constrained`, tokens that were routed with the constraint on;
///                    only if given. Predicted times are for as many tokens as the other steps'
/// @throws as predict() and reach_from_pairs(); Error(kInvalidArgument) if the plan is for another
///         model, or statistics hold loads without pairs
std::vector<WaterfallStep> predict_waterfall(const Plan& plan, const RoutedTokens& tokens,
                                             const RoutedTokens* constrained,
                                             const PredictRequest& request, int num_threads,
                                             Progress& progress);

/// @returns the mean of a prediction's column; 0 of an empty one
double mean_over_layers(std::span<const double> column);

/// The copies on the wire, where one between nodes counts as many as it takes longer than one
/// within a node: what the optimizer minimizes.
/// @returns the mean over layers
double link_cost_per_token(const Prediction& prediction, const Cluster& cluster);

/// @returns how much slower the link between two nodes is than that within one
double node_copy_weight(const Cluster& cluster);

/// @returns the bytes of a token on the wire, dispatch and combine together: the mean over layers
double wire_bytes_per_token(const Prediction& prediction, const CopyFormat& format);

/// The plan's placements. [num_layers]
std::vector<Placement> placements_of(const Plan& plan);

/// Contiguous placements with as few slots as hold all experts. [num_layers]
std::vector<Placement> contiguous_placements(const TraceHeader& header, const Cluster& cluster);

}  // namespace c2r
