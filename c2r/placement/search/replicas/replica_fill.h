// Fills the redundant slots of a partition with the replicas that save most copies.
#pragma once

#include <cstdint>
#include <vector>

#include "c2r/placement/cluster.h"
#include "c2r/placement/placement.h"
#include "c2r/placement/search/search_energy.h"
#include "c2r/placement/search/set_index.h"

namespace c2r {

/// Adds replicas until every rank has `slots_per_rank` experts, greedily by the gain in
/// replica_fill.cc: the copies that a replica saves, and the load above the bound that it takes
/// from one rank or adds to another. Ties go to the lower rank, then to the expert with the most
/// load for each replica, then to the lower expert. An expert's replicas go to different nodes as
/// far as these have empty slots or, if `is_fixed_to_nodes`, stay in its node.
/// @param experts_of_rank [ep_size], each expert on one rank
/// @param num_judged gets how often a rank was judged for an expert, if it is not null
/// @returns the placement with the replicas
/// @throws Error(kInvalidArgument) if `is_fixed_to_nodes` and a rank has more slots than its node
///         has experts
///
/// Cost: one pass over the sets and one over those of each replicated expert. Judges each expert on
/// each rank after each replica that tokens move to, and else a few ranks for each expert.
Placement fill_with_replicas(const SetIndex& index, const Cluster& cluster,
                             const SearchEnergy& energy, bool is_fixed_to_nodes,
                             std::int32_t slots_per_rank,
                             std::vector<std::vector<std::int32_t>> experts_of_rank,
                             std::int64_t* num_judged = nullptr);

}  // namespace c2r
