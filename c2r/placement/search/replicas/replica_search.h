// Search for placements with replicas, where different sets of ranks can serve a token.
#pragma once

#include <cstdint>
#include <span>

#include "c2r/placement/cluster.h"
#include "c2r/placement/measure.h"
#include "c2r/placement/search/replicas/replica_state.h"
#include "c2r/placement/search/search_energy.h"
#include "c2r/placement/search/set_index.h"

namespace c2r {

struct ReplicaEffort {
  std::int64_t work = 0;  // in units of PartitionEffort
  std::uint64_t seed = 0;
  // Else only moves slots, which is for more slots than the work can anneal (slot_search.h).
  bool anneals = true;
  // In units of the mean load of an expert times the cost of a copy. The first round begins at the
  // first, later ones at the second.
  double start_temperature = 0.1, later_temperature = 0.1, end_temperature = 0.004;
  // The load penalty rises to its full height from this part of it.
  double start_penalty = 1;
  // That approach a bound on the load, see replica_search.cc.
  int num_rounds = 1;
  // The slots that anneal, numbered rank by rank; empty: all. The others change by polish() alone.
  std::span<const std::int32_t> movable = {};
};

/// Improves a placement with replicas by annealing.
/// @param start with settled loads
/// @param served judges the bound on the load instead of the settled loads; null: these do
/// @returns the best placement met, with settled loads
ReplicaState search_replicas(const SetIndex& index, const Cluster& cluster,
                             const SearchEnergy& energy, bool is_fixed_to_nodes,
                             const ReplicaEffort& effort, const SearchLimits& limits,
                             ReplicaState start, const ServedLoads* served = nullptr);

}  // namespace c2r
