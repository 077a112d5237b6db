// Fills the free slots of a partition with the replicas that save most copies.
#pragma once

#include <cstdint>
#include <vector>

#include "c2r/placement/cluster.h"
#include "c2r/placement/placement.h"
#include "c2r/placement/search/search_energy.h"
#include "c2r/placement/search/set_index.h"

namespace c2r {

/// Adds replicas to `experts_of_rank` until every rank has `slots_per_rank`, greedily by the copies
/// that each saves and the load above the bound that it takes away or brings; ties go to the lower
/// rank, then expert. An expert's replicas go to different nodes as far as there are nodes with
/// free slots or, if `is_fixed_to_nodes`, stay in its node.
/// @throws Error(kInvalidArgument) if `is_fixed_to_nodes` and a rank has more slots than its node
///         has experts
///
/// Cost: one pass over the sets and one over those of each replicated expert.
Placement fill_with_replicas(const SetIndex& index, const Cluster& cluster,
                             const SearchEnergy& energy, bool is_fixed_to_nodes,
                             std::int32_t slots_per_rank,
                             std::vector<std::vector<std::int32_t>> experts_of_rank);

}  // namespace c2r
