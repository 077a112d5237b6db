// Fan-out: how many ranks a token must reach on average where experts are split in order over them.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "c2r/collaboration/collaboration.h"
#include "c2r/core/progress.h"
#include "c2r/trace/trace.h"

namespace c2r {

/// The mean number of distinct ranks per token if experts are split contiguously over `ep_size`
/// ranks (place_contiguous()).
struct FanOutOfSplit {
  std::int32_t ep_size = 0;
  std::vector<double> per_layer;  // [num_layers]
  double mean = 0;                // over layers
};

/// @param statistics of all tokens
/// @param traces those whose tokens were counted in the statistics; empty: from the statistics
/// @returns nothing if there are no traces and the statistics cannot tell: pair counts determine
///          fan-out for top_k <= 2 only, and loads never do
/// @throws Error(kInvalidArgument) if ep_size does not divide the number of experts, or if a trace
///         has other layers or experts than the statistics
/// @throws Error(kInvalidFile) if a trace holds an invalid choice
///
/// Cost: count_reach() of every trace, or reach_from_pairs() of every layer.
std::optional<FanOutOfSplit> fan_out_of_split(const CollaborationStatistics& statistics,
                                              std::span<const Trace> traces, std::int32_t ep_size,
                                              int num_threads, Progress& progress);

}  // namespace c2r
