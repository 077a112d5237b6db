// Lists the steps of a layer that runs in chunks.
#include "c2r/dispatch/pipeline_steps.h"

namespace c2r {

std::vector<PipelineStep> pipeline_steps(std::int32_t num_chunks) {
  std::vector<PipelineStep> steps;
  steps.push_back({StepKind::kStartDispatch, 0});
  steps.push_back({StepKind::kLocalWork, 0});
  for (std::int32_t chunk = 0; chunk < num_chunks; ++chunk) {
    const bool is_last = chunk + 1 == num_chunks;
    steps.push_back({StepKind::kDispatchOwn, chunk});
    if (!is_last) steps.push_back({StepKind::kComputeOwn, chunk});
    steps.push_back({StepKind::kWaitDispatch, chunk});
    // The next chunk leaves before this one's rows are handed out.
    if (!is_last) steps.push_back({StepKind::kStartDispatch, chunk + 1});
    steps.push_back({StepKind::kFinishDispatch, chunk});
    steps.push_back({StepKind::kComputeOthers, chunk});
    steps.push_back({StepKind::kStartCombine, chunk});
    if (is_last) steps.push_back({StepKind::kComputeOwn, chunk});
    steps.push_back({StepKind::kCombineOwn, chunk});
    steps.push_back({is_last ? StepKind::kFinishCombines : StepKind::kFinishCombinesIfBack, chunk});
  }
  return steps;
}

}  // namespace c2r
