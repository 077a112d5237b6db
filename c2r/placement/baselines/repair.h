// Repairs placements in which a rank holds an expert in two slots, as EPLB may make them.
#pragma once

#include <cstdint>
#include <span>

#include "c2r/core/ids.h"
#include "c2r/core/matrix.h"
#include "c2r/placement/cluster.h"
#include "c2r/placement/placement.h"

namespace c2r {

/// Empties each slot whose expert an earlier slot of its rank holds.
/// @param slots [ep_size, slots_per_rank]
/// @returns how many slots that were
std::int64_t empty_repeats(Matrix<ExpertId>& slots);

struct RepairedPlacement {
  Placement placement;
  std::int64_t num_repaired = 0;  // slots whose expert an earlier slot of the same rank held
};

/// Gives other experts to the slots whose expert an earlier slot of the same rank holds. Such a
/// slot is exchanged for the slot with the most similar load per replica that leaves no such pair,
/// in the same node if there is one. Where there is none, the slot goes to the expert with the
/// highest load per replica that the rank lacks.
/// @param slots every expert at least once, none empty. [ep_size, slots_per_rank]
/// @param loads of the experts. [num_experts]
/// @throws Error(kInvalidArgument) if a rank has more slots than there are experts, or the slots
///         are not those of the cluster's ranks
/// Cost: O(num_slots * slots_per_rank), and as much for each repaired slot.
RepairedPlacement repair_repeats(const Matrix<ExpertId>& slots, std::span<const double> loads,
                                 const Cluster& cluster);

}  // namespace c2r
