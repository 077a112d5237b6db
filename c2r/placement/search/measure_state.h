// The energy that the searches minimize for an objective, and the cost of a placement in a search.
#pragma once

#include <cstdint>

#include "c2r/placement/cluster.h"
#include "c2r/placement/measure.h"
#include "c2r/placement/search/copy_bounds.h"
#include "c2r/placement/search/replicas/replica_state.h"
#include "c2r/placement/search/search_energy.h"
#include "c2r/placement/search/set_index.h"

namespace c2r {

/// @returns what the searches minimize for an objective
/// @param num_tokens tokens without any choice included: costs and bounds are per token
SearchEnergy energy_for(const SetIndex& index, std::int64_t num_tokens, const Cluster& cluster,
                        const PlacementObjective& objective);

/// @param bounds of `index`
/// @param state with settled loads
/// @returns measure_placement() of the state
OptimizedPlacement measure_state(const SetIndex& index, const CopyBounds& bounds,
                                 std::int64_t num_tokens, const Cluster& cluster,
                                 const PlacementObjective& objective, const ReplicaState& state);

}  // namespace c2r
