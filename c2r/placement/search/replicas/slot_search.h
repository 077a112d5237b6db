// Search among placements with replicas by swaps that cost as little as those without replicas.
//
// While every token keeps the slots that serve it, slots are experts of their own: which slot is on
// which rank is then a partition, whose swaps are judged in O(1) (partition_level.h). Tokens that
// are served anew afterwards need no more copies than the partition has, since each takes the
// fewest ranks. So serving and swapping in turn never increases the copies between ranks; those
// between nodes may grow, since the fewest ranks come first.
#pragma once

#include "c2r/placement/search/partition_search.h"
#include "c2r/placement/search/replicas/replica_state.h"

namespace c2r {

/// @returns the token sets with the slots that serve them instead of experts; slots are numbered
///          rank by rank. Rows are neither sorted nor merged: SetIndex needs neither
TokenSets served_slots(const SetIndex& index, const ReplicaState& state);

/// Anneals the slots of `state`, where every token stays with the slots that serve it now.
/// Replicas stay on different nodes as far as there are nodes, and on different ranks.
/// @param is_fixed_to_nodes slots may only move within their node
/// @returns the placement with the moved slots
Placement anneal_slots(const SetIndex& index, const Cluster& cluster, const SearchEnergy& energy,
                       bool is_fixed_to_nodes, const PartitionEffort& effort,
                       const SearchLimits& limits, const ReplicaState& state);

}  // namespace c2r
