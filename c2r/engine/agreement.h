// Whether the ranks of a run are about to run the same model in the same way.
#pragma once

#include "c2r/engine/engine.h"

namespace c2r {

/// Collective: compares what every rank has opened, so that a rank with another checkpoint, plan or
/// options ends the run instead of spoiling its results or waiting for messages that never come.
///
/// Of the weights it compares every tensor's name, type and shape, the gates, and some bytes of
/// each tensor: enough to tell two checkpoints apart, not to find a damaged byte.
///
/// @throws Error(kInvalidArgument) on every rank, naming one that differs from rank 0 and in what;
///         as Exchange::wait()
/// Cost: reads the gates, and 256 bytes of each tensor without mapping its pages; 32 bytes from
/// each rank to each other.
void check_same_run(Transport& transport, const Model& model, Arithmetic arithmetic,
                    const ExpertParallelOptions& options);

}  // namespace c2r
