// Search for a placement with replicas in stages: hot on a sample of the token sets, then cooler on
// larger samples.
#pragma once

#include <cstdint>

#include "c2r/placement/cluster.h"
#include "c2r/placement/search/replicas/replica_state.h"
#include "c2r/placement/search/search_energy.h"
#include "c2r/placement/search/set_index.h"

namespace c2r {

/// @returns whether `work` anneals so many slots, hot on a sample that is large enough
bool can_anneal_slots(std::int64_t num_slots, double work);

/// Anneals a placement with replicas.
/// @param work in units of PartitionEffort
/// @param start with settled loads
/// @returns the best placement of the last stage, with settled loads
///
/// Cost: `work`, and some passes over the sets, which serve tokens.
ReplicaState anneal_in_stages(const SetIndex& index, const Cluster& cluster,
                              const SearchEnergy& energy, bool is_fixed_to_nodes, double work,
                              std::uint64_t seed, const SearchLimits& limits,
                              const ReplicaState& start);

}  // namespace c2r
