// Searches the placements of make_plan(), and the bound that they are fitted with.
#pragma once

#include <string>
#include <vector>

#include "c2r/plan/make_plan.h"

namespace c2r::internal {

struct FoundPlacements {
  PlacementObjective objective;  // with the bound on imbalance that was fitted with
  std::vector<OptimizedPlacement> layers;
  std::string ended_by;  // as in Provenance
};

/// Changes the placements of request.from by at most request.from->max_moves experts.
FoundPlacements replan_placements(const RoutedTokens& tokens, const PlanRequest& request,
                                  Progress& progress);

FoundPlacements search_placements(const RoutedTokens& tokens, const PlanRequest& request,
                                  const PlanHooks& hooks, Progress& progress);

}  // namespace c2r::internal
