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

FoundPlacements search_placements(const RoutedTokens& tokens, const PlanRequest& request,
                                  const PlanHooks& hooks, Progress& progress);

}  // namespace c2r::internal
