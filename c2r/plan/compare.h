// Compares plans, baselines and a Pareto front on the same tokens.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/core/progress.h"
#include "c2r/plan/plan.h"
#include "c2r/plan/prediction/predict.h"
#include "c2r/plan/prediction/resample.h"
#include "c2r/trace/sequence_split.h"
#include "c2r/trace/trace.h"

namespace c2r {

struct NamedPlan {
  std::string name;  // for tables and messages: its file
  Plan plan;
};

struct CompareRequest {
  PredictRequest predict;  // with the cluster, on which baselines and front are placed, too
  SequencePart on = SequencePart::kAll;       // the sequences that are counted
  SequencePart fit = SequencePart::kAll;      // those that baselines and front are fitted on
  std::vector<std::string> baselines;         // of baseline_names(), in the order of the result
  std::int32_t redundant_slots_per_rank = 0;  // of baselines and front
  // Also search for at most so many placements, from the fewest copies to the best balance.
  std::optional<int> num_front_points;
  double effort = 1;  // of the front's search, as in OptimizeOptions
  std::uint64_t seed = 0;
  bool bounds_copies = false;  // also compute a lower bound of the copies with an entry's slots
  int num_threads = 1;
};

/// One placement of all layers with its prediction.
struct ComparisonEntry {
  std::string name, kind;                  // kind: baseline, plan or front
  std::string fitted_on;                   // "-" if the placement does not depend on tokens
  bool is_fitted = false;                  // on some of the counted tokens
  bool is_by_name = false;                 // the plan has only the name of its trace, no hash
  std::vector<Placement> placements = {};  // [num_layers]
  Prediction prediction = {};
  std::vector<double> jain_index = {};       // [num_layers], of the choices over ranks
  std::optional<double> copies_bound = {};   // mean over layers, for all placements of these slots
  std::optional<SavedIntervals> saved = {};  // of plans on traces: of the base of the comparison
};

struct Comparison {
  Prediction base;                       // what savings are measured against: predict_base()
  std::vector<ComparisonEntry> entries;  // baselines, plans and the front, in this order
  std::vector<std::string> left_out;     // baselines that cannot place this: "NAME: REASON"
  // The least bound on imbalance that the compared plans were made with, if any had one.
  std::optional<double> max_imbalance = {};
  std::vector<std::int32_t> layer_indices = {};  // the model's own. [num_layers]
  std::vector<std::string> notes = {};  // what was repaired in a baseline or is wasted in a plan
};

/// Counts all placements on the part `request.on` of the trace.
/// @returns the baselines, the plans and the front with their predictions
/// @throws Error(kInvalidArgument) if a plan is for another cluster or model, the front has fewer
///         than 2 points, a bound is asked for in a mode without one, or nothing is left to compare
///
/// Cost: count_reach() for each entry, twice for each plan; the baselines; pareto_front() of each
/// layer, if asked for.
Comparison compare(const Trace& trace, std::span<const NamedPlan> plans,
                   const CompareRequest& request, Progress& progress);

/// Compares on counts of all sequences: pairs, whose copies are exact for top-2 and else a lower
/// bound, with the replica rule local-first; or loads, which give the imbalance only.
/// @param name of the counts: their file
/// @throws as above, and Error(kInvalidArgument) if another part, a front or bounds are asked for
Comparison compare(const CollaborationStatistics& statistics, std::string_view name,
                   std::span<const NamedPlan> plans, const CompareRequest& request,
                   Progress& progress);

/// @param request as it was given to compare()
/// @returns a plan of each of the front's placements, in their order, without predictions
std::vector<Plan> front_plans(const Trace& trace, const Comparison& comparison,
                              const CompareRequest& request);

}  // namespace c2r
