// What a placement of all layers gives on the tokens of a trace: every number a user compares.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "c2r/core/progress.h"
#include "c2r/placement/layer_time.h"
#include "c2r/placement/reach.h"
#include "c2r/placement/volume.h"
#include "c2r/plan/plan.h"
#include "c2r/routing/sequence_split.h"
#include "c2r/routing/trace.h"

namespace c2r {

struct PredictRequest {
  ReachOptions reach;
  CopyMode copy_mode = CopyMode::kPerRank;
  std::optional<LayerTimeOptions> layer_time;  // for predicted times, of all tokens as one batch
};

/// Counts `placements` [num_layers] on the tokens of `trace` in `ranges`.
/// @throws Error(kInvalidArgument) if they do not fit the trace or the cluster,
///         Error(kInvalidFile) if the trace holds an invalid choice
///
/// Cost: count_reach().
Prediction predict(const Trace& trace, std::span<const TokenRange> ranges,
                   std::span<const Placement> placements, const PredictRequest& request,
                   int num_threads, Progress& progress);

/// Where the savings come from, one step at a time:
///   1. "per-expert": contiguous placement, one copy per choice, as MegaBlocks sends
///   2. "one copy per rank" (or per node, as the request's mode says): the same placement
///   3. "placement", or "placement and replicas": the plan's
/// @throws as predict(); Error(kInvalidArgument) if the plan is for another model than the trace
std::vector<Prediction> predict_waterfall(const Plan& plan, const Trace& trace,
                                          std::span<const TokenRange> ranges,
                                          const PredictRequest& request, int num_threads,
                                          Progress& progress);

/// The plan's placements. [num_layers]
std::vector<Placement> placements_of(const Plan& plan);

/// Contiguous placements with as few slots as hold all experts. [num_layers]
std::vector<Placement> contiguous_placements(const TraceHeader& header, const Cluster& cluster);

}  // namespace c2r
