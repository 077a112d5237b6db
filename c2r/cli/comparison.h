// The work of `c2r compare`: placements from wherever they come, counted on the same tokens.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "c2r/cli/prediction_options.h"
#include "c2r/placement/cluster.h"
#include "c2r/placement/placement.h"
#include "c2r/plan/plan.h"
#include "c2r/plan/predict.h"
#include "c2r/trace/sequence_split.h"
#include "c2r/trace/trace.h"

namespace c2r::cli {

struct CompareOptions : PredictionOptions {
  std::string trace;
  std::vector<std::string> plans;
  std::vector<std::string> baselines = {"contiguous", "round-robin", "random",
                                        "eplb",       "affinity",    "grace"};
  std::string fit, front_plans;
  std::int32_t redundant_slots = 0;
  int num_front_points = 0;
  double effort = 1;
  bool has_bound = false;
};

/// One line of the result.
struct ComparisonEntry {
  std::string name, kind;   // kind: baseline, plan or front
  std::string fitted_on;    // "-" where the placement looks at no tokens
  bool is_fitted = false;   // on tokens that are reported on
  bool is_by_name = false;  // fitted_on is known by the name of the trace only
  std::vector<Placement> placements = {};
  Prediction prediction = {};
  std::optional<double> copies_bound = {};  // mean over layers, of any placement with these slots

  std::int32_t slots_per_rank() const { return placements[0].slots_per_rank(); }
};

struct Comparison {
  const CompareOptions& options;
  Trace trace;
  SequencePart on, fit;
  std::vector<TokenRange> ranges_on, ranges_fit;
  Cluster cluster;
  PredictRequest request;
  std::vector<ComparisonEntry> entries = {};
  std::vector<std::string> left_out = {};  // NAME: REASON

  std::int32_t least_slots_per_rank() const {
    const std::int32_t ep_size = cluster.ep_size();
    return (trace.header().num_experts + ep_size - 1) / ep_size;
  }
};

/// Baselines, plans and the front, in this order. Writes the plans of the front if they are asked
/// for. @throws Error(kInvalidArgument) if the options contradict each other or nothing is left
Comparison make_comparison(const CompareOptions& options);

}  // namespace c2r::cli
