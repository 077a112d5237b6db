// Relabels the ranks of a placement. Which rank holds which set of experts is free: copies, fan-out
// and loads stay as they are, as long as ranks of one node stay together.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "c2r/core/ids.h"
#include "c2r/core/matrix.h"
#include "c2r/placement/cluster.h"
#include "c2r/placement/placement.h"

namespace c2r {

/// @param gain [ep_size, ep_size], of giving rank `row` the label `column`
/// @returns the label of each rank with the largest sum of gains, where the ranks of a node get the
///          labels of one node. [ep_size]
/// @throws Error(kInvalidArgument) as best_assignment(), or if the gains are of other ranks
///
/// Cost: best_assignment() of the ranks of two nodes for each pair of nodes, and of the nodes.
std::vector<RankId> best_labels(MatrixView<const double> gain, const Cluster& cluster);

/// @param label_of the new number of each rank, each once. [ep_size]
/// @returns `placement` with renamed ranks
/// @throws Error(kInvalidArgument) if the labels are no permutation of the ranks
Placement relabelled(const Placement& placement, std::span<const RankId> label_of);

/// @returns the experts that ranks must load when `to` replaces `from`: pairs of a rank and an
///          expert that it holds in `to` and not in `from`
/// @throws Error(kInvalidArgument) if the placements are of other experts or ranks
std::int64_t num_moved_experts(const Placement& from, const Placement& to);

/// @returns `to` with its ranks relabelled, within and between nodes, so that the fewest experts
///          move, and with every expert that stays on a rank in the slot that it has in `from`, as
///          far as `to` has this slot; a rank of `to` may hold an expert twice
/// @throws Error(kInvalidArgument) as num_moved_experts(), or if the cluster has other ranks
///
/// Cost: best_labels(), and O(ep_size^2 x slots).
Placement with_fewest_moves(const Placement& from, const Placement& to, const Cluster& cluster);

/// @returns the slots, numbered rank by rank and ascending, that hold another expert in `placement`
///          than in with_fewest_moves(placement, other, cluster): what the two do not agree on
/// @throws Error(kInvalidArgument) as with_fewest_moves(), or if they have other numbers of slots
std::vector<std::int32_t> differing_slots(const Placement& placement, const Placement& other,
                                          const Cluster& cluster);

}  // namespace c2r
