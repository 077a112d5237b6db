// Fan-out: how many ranks a token must reach, if each expert is on one.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "c2r/collaboration/collaboration.h"
#include "c2r/core/progress.h"
#include "c2r/trace/trace.h"

namespace c2r {

/// For each layer, the sum over tokens of the distinct ranks among the token's experts; divided
/// by the number of tokens it is the mean fan-out.
/// @param rank_of_expert [num_experts], each in [0, kMaxExperts): no more ranks than experts
/// @throws Error(kInvalidArgument) if it has another length or an id out of range,
///         Error(kInvalidFile) if the trace holds an invalid choice
///
/// Cost: one pass over the trace, O(top_k) a token and layer.
std::vector<std::int64_t> count_fan_out(const Trace& trace,
                                        std::span<const std::int32_t> rank_of_expert,
                                        int num_threads, Progress& progress);

/// The same from co-activation counts, which determine it for top_k <= 2 only.
/// @returns nothing for a larger top_k and for statistics without pairs
/// @throws Error(kInvalidArgument) as above, or if the parts of the statistics are not of its
/// layers
///         and experts
std::optional<std::vector<std::int64_t>> count_fan_out(
    const CollaborationStatistics& statistics, std::span<const std::int32_t> rank_of_expert);

/// Mean distinct ranks per token if experts are split contiguously over `ep_size` ranks.
struct FanOutOfSplit {
  std::int32_t ep_size = 0;
  std::vector<double> per_layer;  // [num_layers]
  double mean = 0;                // over layers
};

/// @param statistics of all tokens
/// @param traces those whose tokens were counted in the statistics; empty: from pair counts
/// @returns nothing if there are no traces and pair counts cannot tell
/// @throws Error(kInvalidArgument) if ep_size does not divide the number of experts,
///         Error(kInvalidFile) if a trace holds an invalid choice
///
/// Cost: count_fan_out() of every trace.
std::optional<FanOutOfSplit> fan_out_of_split(const CollaborationStatistics& statistics,
                                              std::span<const Trace> traces, std::int32_t ep_size,
                                              int num_threads, Progress& progress);

}  // namespace c2r
