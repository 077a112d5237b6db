// Joins traces of one model, so that they are fitted and counted together.
#pragma once

#include <span>
#include <vector>

#include "c2r/trace/sequence_split.h"
#include "c2r/trace/trace.h"

namespace c2r {

struct JoinedTraces {
  Trace trace;                    // in memory, named "a.safetensors + b.safetensors"
  std::vector<TokenRange> parts;  // the tokens of each trace in it. [num_traces]
};

/// @param traces at least one
/// @returns the tokens of all traces, one trace after the other, without weights and logits, and
///          with token ids if all of them have them
/// @throws Error(kInvalidArgument) if there is none, or naming the trace, if they are of other
///         experts, top_k or layers than the first
/// @throws Error(kInvalidFile) if a trace holds an invalid choice
///
/// Cost: one pass over the choices; memory of 1 byte a choice, 2 with more than 255 experts, and
/// while it joins of 4 bytes more.
JoinedTraces join_traces(std::span<const Trace> traces);

}  // namespace c2r
