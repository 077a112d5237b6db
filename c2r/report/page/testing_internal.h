// Traces, plans and reports that are small enough to count by hand.
#pragma once

#include <string>
#include <vector>

#include "c2r/core/progress.h"
#include "c2r/placement/testing_internal.h"
#include "c2r/report/page/report_data.h"

namespace c2r::testing {

// Sequences of 10 tokens. Experts 0 and 2 choose each other, and 1 and 3: contiguous experts are
// as bad as can be. In layer 5 the first expert of the pair is chosen first, in layer 7 the other.
inline Trace crossing_pairs(const std::string& model = "m", std::int32_t num_sequences = 4) {
  const std::int32_t num_tokens = 10 * num_sequences;
  Matrix<ExpertId> first(num_tokens, 2), second(num_tokens, 2);
  for (std::int32_t t = 0; t < num_tokens; ++t) {
    const std::int32_t low = t % 3 == 0 ? 1 : 0;
    first(t, 0) = second(t, 1) = ExpertId{low};
    first(t, 1) = second(t, 0) = ExpertId{low + 2};
  }
  const std::vector<MatrixView<const ExpertId>> layers = {first, second};
  std::vector<std::int64_t> starts;
  for (std::int32_t s = 0; s < num_sequences; ++s) starts.push_back(10 * s);
  return Trace({.model = model, .num_experts = 4, .top_k = 2, .layer_indices = {5, 7}}, layers,
               starts);
}

inline Plan plan_of_ranks(const Placement& placement, const std::string& model = "m") {
  return {.model = model,
          .num_experts = 4,
          .top_k = 2,
          .cluster = {.ranks_per_node = 2},
          .layers = {{.layer_index = 5, .placement = placement},
                     {.layer_index = 7, .placement = placement}},
          .provenance = {.method = "test", .options = {{"max_imbalance", 1.1}}}};
}

inline const Placement kTogether = make_placement(4, {{0, 2}, {1, 3}});
inline const Placement kApart = make_placement(4, {{0, 1}, {2, 3}});

inline ReportRequest request_for(const Plan& plan) {
  return {.plan_name = "plan.json",
          .trace_name = "trace",
          .predict = {.traffic = {.cluster = plan.cluster}},
          .format = CopyFormat{.hidden = 10}};
}

inline Json report_of(const Plan& plan, const Trace& trace) {
  NoProgress progress;
  return report_data(plan, trace, request_for(plan), progress);
}

// A plan that halves copies and is within its bound on 60 sequences: rank 0 computes 4/3 of the
// mean.
inline Plan good_plan() {
  Plan plan = plan_of_ranks(kTogether);
  plan.provenance.options = {{"max_imbalance", 1.4}};
  return plan;
}

// What is computed on 60 sequences: enough for an answer.
inline Json report_of_60(const Plan& plan, const ReportRequest& request) {
  NoProgress progress;
  return report_data(plan, crossing_pairs("m", 60), request, progress);
}

}  // namespace c2r::testing
