// Places experts by their loads alone, so that ranks are loaded evenly.
//
// Where loads are all that is known, replicas of an expert are taken to serve equal shares of its
// load, as DeepSeek's EPLB does.
#pragma once

#include <cstdint>
#include <span>

#include "c2r/placement/placement.h"

namespace c2r {

/// @param loads [num_experts], choices of each expert
/// @returns the load of the busiest rank over the mean of the ranks, where the slots of an expert
///          serve equal shares, also two slots of one rank; 1 without any load
/// @throws Error(kInvalidArgument) if the placement is of another number of experts
double imbalance_of_loads(const Placement& placement, std::span<const std::int64_t> loads);

/// A rank that holds a slot of expert e serves at least loads[e] / (the most replicas that e can
/// have), so no placement of these slots has a lower imbalance than
///   max(1, max over e of loads[e] / min(ep_size, 1 + redundant slots) x ep_size / total load).
/// @param num_slots of all ranks together, at least as many as experts
double imbalance_bound_of_loads(std::span<const std::int64_t> loads, std::int32_t ep_size,
                                std::int64_t num_slots);

}  // namespace c2r
