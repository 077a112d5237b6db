// Lower bounds on the copies and on the imbalance of any placement.
#pragma once

#include <cstdint>

#include "c2r/placement/set_index.h"

namespace c2r {

/// No placement of `num_groups` groups with `slots_per_group` slots each, replicas included, makes
/// fewer copies in all: at most one replica of an expert in a group, tokens served in any way.
/// The larger of two bounds; the proofs are in the source.
/// Cost: O(choices x top_k + num_experts^2 log num_experts).
double copies_bound(const SetIndex& index, std::int32_t num_groups, std::int32_t slots_per_group);

/// No such placement has a lower max / mean load. 1 with replicas, which may split any load.
double imbalance_bound(const SetIndex& index, std::int32_t num_groups,
                       std::int32_t slots_per_group);

}  // namespace c2r
