// The placement optimizer: experts to slots of ranks, so that few copies of tokens are sent and no
// rank is overloaded.
//
// Copies of a token = the distinct ranks that must be visited (and, where the links between nodes
// are slower, the distinct nodes, each at its own cost). Without replicas this is the connectivity
// metric of balanced hypergraph partitioning; with them, each token takes the fewest ranks that
// host all its experts, then the fewest nodes, then the least load.
//
// Search: annealing over swaps that are judged in O(1) (partition_level.h), hot on a sample where
// tokens are many and then on all (partition_stages.h), then replicas by gain, then annealing of
// the whole, whose changes are estimated in O(1) (replica_stages.h, served_tables.h), or, where
// slots are too many, of where they are (slot_search.h).
// docs/placement.md describes the steps in order.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "c2r/core/progress.h"
#include "c2r/placement/cluster.h"
#include "c2r/placement/measure.h"
#include "c2r/placement/optimize_options.h"
#include "c2r/placement/token_sets.h"

namespace c2r {

/// Every rank gets ceil(num_experts / ep_size) + redundant_slots_per_rank slots. The slots of all
/// ranks beyond one for each expert are redundant and hold replicas; the replicas of an expert are
/// on different nodes as far as these have redundant slots.
///
/// With replicas, loads depend on the order in which tokens are served, and the search has an order
/// of its own. With `served`, the imbalance of the result and whether it meets its bound are by
/// what `served` counts. A placement that it puts above the bound is annealed on at low
/// temperatures, in four rounds. A round adds to the load of each rank what `served` counted there
/// more than the search, for the placement of the round before, and aims at the load that this
/// placement shows to be needed. So only the ranks that are too busy are relieved. A lower bound
/// for every rank was tried instead and costs copies on all ranks: on gpt-oss-20b, 8 ranks of 5
/// slots, bound 1.05, 2.843 copies a token, and 2.523 with these rounds.
///
/// @param served only for few copies within max_imbalance, without max_copy_cost or scenarios
/// @returns the best placement found, which depends on the arguments alone unless `seconds` or
///          `stop` ends the search
/// @throws Error(kInvalidArgument) if the groups cannot be kept, a rank has more slots than there
///         are experts, effort or seconds are not above 0, kTime lacks layer_time or is given
///         max_copy_cost, or `served` is not for the objective or returns another number of loads
///         than there are ranks; and what `served` throws
///
/// Cost: about effort x (0.1 s, with replicas 0.7 s) for 32 experts and 100,000 tokens, some
/// 0.7 s for 256 experts on 64 ranks with replicas; plus the proof, see
/// max_columns; kTime and kImbalance within max_copy_cost twice that. `served` is called once for
/// each repeated search of an effort; where the bound is then exceeded, five times more and for
/// half as much annealing again. Per thread memory of some 50 bytes a choice of a distinct set and,
/// for slots = num_experts or, with replicas, the slots of all ranks, slots x (slots + ep_size) x 8
/// bytes, on several nodes twice.
OptimizedPlacement optimize_placement(const TokenSets& sets, const Cluster& cluster,
                                      const PlacementObjective& objective,
                                      const OptimizeOptions& options,
                                      const ServedLoads& served = {});

/// The loads by which the placements of a layer are judged; called from several threads.
using LayerServedLoads =
    std::function<std::vector<double>(std::int64_t layer, const Placement& placement)>;

/// Optimizes all layers. The result does not depend on num_threads. A layer whose search `seconds`
/// or `stop` ended, or that was not begun by then, is at least searched with an effort of 0.02, for
/// up to 0.1 s, or until its first round is done.
/// @param load_layer is called once for each layer, from several threads
/// @returns [num_layers]
/// @throws as optimize_placement(), and what `load_layer` throws
std::vector<OptimizedPlacement> optimize_placements(
    std::int64_t num_layers, const std::function<TokenSets(std::int64_t layer)>& load_layer,
    const Cluster& cluster, const PlacementObjective& objective, const OptimizeOptions& options,
    Progress& progress, const LayerServedLoads& served = {});

/// Finds placements from the fewest copies to the best balance: the bound on the imbalance is
/// lowered in `num_points` steps from what the fewest copies give to the least reachable.
/// @returns those that no other dominates, in ascending order of copy_cost
/// @throws Error(kInvalidArgument) as optimize_placement(), and unless num_points >= 2
std::vector<OptimizedPlacement> pareto_front(const TokenSets& sets, const Cluster& cluster,
                                             const PlacementObjective& objective,
                                             const OptimizeOptions& options, int num_points);

/// @returns those of `points` that no other equals or beats in both copy_cost and imbalance, of
///          equals the first, in ascending order of copy_cost
std::vector<OptimizedPlacement> without_dominated(std::vector<OptimizedPlacement> points);

}  // namespace c2r
