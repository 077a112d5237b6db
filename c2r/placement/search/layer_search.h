// The optimizer's steps for one layer, in order; optimize.h says what they are to achieve.
#pragma once

#include "c2r/placement/cluster.h"
#include "c2r/placement/measure.h"
#include "c2r/placement/optimize_options.h"
#include "c2r/placement/search/search_energy.h"
#include "c2r/placement/token_sets.h"

namespace c2r {

/// optimize_placement() within `limits`, whatever `options` says of time, for any goal but kTime.
OptimizedPlacement search_layer(const TokenSets& sets, const Cluster& cluster,
                                const PlacementObjective& objective, const OptimizeOptions& options,
                                const SearchLimits& limits);

}  // namespace c2r
