// Search for a placement with replicas in stages: hot on a sample of the token sets, then cooler on
// larger samples.
#pragma once

#include "c2r/placement/cluster.h"
#include "c2r/placement/measure.h"
#include "c2r/placement/search/replicas/replica_search.h"
#include "c2r/placement/search/replicas/replica_state.h"
#include "c2r/placement/search/search_energy.h"
#include "c2r/placement/search/set_index.h"

namespace c2r {

/// Anneals a placement with replicas.
/// @param effort its work, seed and movable slots; the temperatures are those of the stages
/// @param start with settled loads
/// @param served judges the bound on the load in the last stage; null: the settled loads do
/// @returns the best placement of the last stage, with settled loads
///
/// Cost: `work`, and some passes over the sets, which serve tokens.
ReplicaState anneal_in_stages(const SetIndex& index, const Cluster& cluster,
                              const SearchEnergy& energy, bool is_fixed_to_nodes,
                              const ReplicaEffort& effort, const SearchLimits& limits,
                              const ReplicaState& start, const ServedLoads* served = nullptr);

}  // namespace c2r
