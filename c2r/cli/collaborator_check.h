// Whether counts of pairs have enough to say for collaborator lists.
#pragma once

#include <cstdint>
#include <span>

#include "c2r/collaboration/collaboration.h"
#include "c2r/trace/trace.h"

namespace c2r::cli {

/// Warns on standard error if experts were chosen together with fewer than `top_t` others, so that
/// their lists have to be filled up with experts that they never met.
/// @param counts [num_layers]
/// @throws Error(kInvalidArgument) if no token of a layer chose two experts
void check_observed_collaborators(const TraceHeader& header,
                                  std::span<const CollaborationMatrix> counts, std::int32_t top_t);

}  // namespace c2r::cli
