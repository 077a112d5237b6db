// Places the experts of make_plan(): searches placements, with the bound that they are fitted with,
// or asks a baseline.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "c2r/plan/make_plan.h"

namespace c2r::internal {

/// The tokens of a plan: those that it is fitted on and those that are reported.
struct PlanTokens {
  RoutedTokens fitted, reported;
  std::vector<PlanInput> inputs;
  std::string fit;                  // the name of the part
  std::vector<Scenario> scenarios;  // of the fitted tokens, as PlanRequest::scenarios groups them

  /// That of the model; fitted pairs of a larger top-k have a header of top-2.
  const TraceHeader& header() const { return reported.header(); }
};

std::int32_t slots_per_rank_of(const PlanRequest& request, const TraceHeader& header);

/// Places the experts with the method of the request, which is a baseline, on the fitted tokens.
/// @returns [num_layers]
/// @throws Error(kUnsupported) with the reason if the baseline cannot place the experts
std::vector<Placement> placements_by_baseline(const PlanTokens& tokens, const PlanRequest& request,
                                              const PlanHooks& hooks, Progress& progress);

struct FoundPlacements {
  PlacementObjective objective;  // with the bound on imbalance that was fitted with
  std::vector<OptimizedPlacement> layers;
  std::string ended_by;  // as in Provenance
  // False: no time was left to judge layers with replicas by the order of the tokens.
  bool is_judged = true;
};

/// Changes the placements of request.from by at most request.from->max_moves experts.
FoundPlacements replan_placements(const RoutedTokens& tokens, const PlanRequest& request,
                                  Progress& progress);

FoundPlacements search_placements(const RoutedTokens& tokens, const PlanRequest& request,
                                  const PlanHooks& hooks, Progress& progress);

}  // namespace c2r::internal
