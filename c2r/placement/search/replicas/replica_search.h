// Search for placements with replicas, where different sets of ranks can serve a token.
#pragma once

#include <cstdint>

#include "c2r/placement/cluster.h"
#include "c2r/placement/measure.h"
#include "c2r/placement/search/replicas/replica_state.h"
#include "c2r/placement/search/search_energy.h"
#include "c2r/placement/search/set_index.h"

namespace c2r {

struct ReplicaEffort {
  std::int64_t work = 0;  // in units of PartitionEffort
  std::uint64_t seed = 0;
  // The start was annealed on a sample of the sets: anneals it at low temperatures, even if the
  // work is too little to try every pair of slots.
  bool is_warm = false;
};

/// Improves a placement with replicas by annealing or, where that is too slow for the effort, by
/// annealing where its slots are (slot_search.h).
/// @param start with settled loads
/// @param served judges the bound on the load instead of the settled loads; null: these do
/// @returns the best placement met, with settled loads
ReplicaState search_replicas(const SetIndex& index, const Cluster& cluster,
                             const SearchEnergy& energy, bool is_fixed_to_nodes,
                             const ReplicaEffort& effort, const SearchLimits& limits,
                             ReplicaState start, const ServedLoads* served = nullptr);

}  // namespace c2r
