// The optimizer's steps for one layer, in order; optimize.h says what they are to achieve.
#pragma once

#include "c2r/placement/optimize.h"
#include "c2r/placement/search/copy_bounds.h"
#include "c2r/placement/search/replica_search.h"
#include "c2r/placement/search/search_energy.h"
#include "c2r/placement/search/set_index.h"

namespace c2r {

/// What the searches minimize for an objective.
/// @param num_tokens those without any choice included: costs and bounds are per token
SearchEnergy energy_for(const SetIndex& index, std::int64_t num_tokens, const Cluster& cluster,
                        const PlacementObjective& objective);

/// optimize_placement() within `limits`, whatever `options` says of time.
OptimizedPlacement search_layer(const TokenSets& sets, const Cluster& cluster,
                                const PlacementObjective& objective, const OptimizeOptions& options,
                                const SearchLimits& limits);

/// measure_placement() of settled loads. @param bounds of `index`
OptimizedPlacement measure_state(const SetIndex& index, const CopyBounds& bounds,
                                 std::int64_t num_tokens, const Cluster& cluster,
                                 const PlacementObjective& objective, const ReplicaState& state);

}  // namespace c2r
