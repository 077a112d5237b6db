// Lists the steps of a layer that runs in chunks: chunk n + 1 travels while chunk n is computed.
#pragma once

#include <cstdint>
#include <vector>

namespace c2r {

enum class StepKind {
  kStartDispatch,         // writes the chunk's rows and starts to send them
  kLocalWork,             // computes what needs no other rank; of no chunk
  kDispatchOwn,           // gives the experts the rows of own tokens
  kComputeOwn,            // computes them
  kWaitDispatch,          // waits for the rows of other ranks' tokens
  kFinishDispatch,        // gives them to the experts
  kComputeOthers,         // computes them
  kStartCombine,          // writes results for other ranks and starts to send them
  kCombineOwn,            // keeps results for own tokens
  kFinishCombinesIfBack,  // adds the results of all chunks up to this one that are back
  kFinishCombines,        // waits for the results of all chunks up to this one, and adds them
};

struct PipelineStep {
  StepKind kind = StepKind::kStartDispatch;
  std::int32_t chunk = 0;

  bool operator==(const PipelineStep&) const = default;
};

/// Lists the steps of a layer in `num_chunks` chunks, for one thread that runs them in this order,
/// or for a stream that is given them in this order. Every rank has the same list, so ranks start
/// their exchanges in the same order, by which a Transport matches them: the dispatch of chunk n +
/// 1 is started after the combine of chunk n - 1 and before that of chunk n.
///
/// A thread that polls need not wait for its turn to start a dispatch: kStartDispatch of chunk
/// n + 1 may run as soon as the combine of n - 1 has started and the rows of n have arrived. It is
/// skipped later. All other steps keep their order.
///
/// The own rows of the last chunk are computed while its results travel; those of other chunks
/// while their rows travel.
///
/// @returns the steps, in order
std::vector<PipelineStep> pipeline_steps(std::int32_t num_chunks);

}  // namespace c2r
