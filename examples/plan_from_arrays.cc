// Plans for 8 ranks from arrays in memory, as a program has them that runs a model.
//   plan_from_arrays TRACE PLAN      gives what `c2r plan TRACE --cluster 1x8 -o PLAN` gives
#include <cstdio>
#include <exception>
#include <span>
#include <stdexcept>
#include <vector>

#include "c2r/plan/make_plan.h"

namespace {

using Choices = c2r::MatrixView<const c2r::ExpertId>;  // [num_tokens, top_k]

c2r::Plan plan_for_8_ranks(const c2r::TraceHeader& model, std::span<const Choices> layers) {
  const c2r::Trace tokens(model, layers);
  return c2r::make_plan(tokens, {.cluster = {.ranks_per_node = 8}}).plan;
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 3) throw std::runtime_error("usage: plan_from_arrays TRACE PLAN");
  // The recording stands for the program's own arrays.
  const c2r::Trace recording(argv[1]);
  std::vector<c2r::Matrix<c2r::ExpertId>> arrays;
  for (int layer = 0; layer < recording.header().num_layers(); ++layer) {
    arrays.push_back(recording.topk_idx(layer, 0, recording.num_tokens()));
  }
  const std::vector<Choices> layers(arrays.begin(), arrays.end());
  c2r::write_plan(plan_for_8_ranks(recording.header(), layers), argv[2]);
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
