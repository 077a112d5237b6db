// The optimizer's steps for one layer, in order; optimize.h defines the result.
#pragma once

#include "c2r/placement/cluster.h"
#include "c2r/placement/measure.h"
#include "c2r/placement/optimize_options.h"
#include "c2r/placement/search/search_energy.h"
#include "c2r/placement/token_sets.h"

namespace c2r {

/// Optimizes for any goal but kTime.
/// @param limits end the search; options.seconds and options.stop are ignored
/// @param served as in optimize_placement(); without it placements are judged by the search's order
/// @returns as optimize_placement()
/// @throws as optimize_placement()
OptimizedPlacement search_layer(const TokenSets& sets, const Cluster& cluster,
                                const PlacementObjective& objective, const OptimizeOptions& options,
                                const SearchLimits& limits, const ServedLoads& served = {});

}  // namespace c2r
