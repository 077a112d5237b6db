// The placement optimizer: experts to slots of ranks, so that few copies of tokens are sent and no
// rank is overloaded.
//
// Copies of a token = the distinct ranks that must be visited (and, where the links between nodes
// are slower, the distinct nodes, each at its own cost). Without replicas this is the connectivity
// metric of balanced hypergraph partitioning; with them, each token takes the fewest ranks that
// host all its experts, then the fewest nodes, then the least load.
//
// Search: annealing over swaps that are judged in O(1) (partition_level.h), seeded on pair counts
// where tokens are too many, then replicas by gain, then annealing of the whole (replica_search.h)
// or, where that is too slow, of where the slots are (slot_search.h). docs/placement.md tells it in
// order.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "c2r/core/progress.h"
#include "c2r/placement/cluster.h"
#include "c2r/placement/cost/layer_time.h"
#include "c2r/placement/placement.h"
#include "c2r/placement/token_sets.h"

namespace c2r {

enum class Goal {
  kCopies,     // copy cost + imbalance_weight x (imbalance - 1), per token
  kImbalance,  // the imbalance; a thousandth of the copy cost per token breaks near-ties
  kTime,       // the layer's predicted time
};

/// What is minimized, within which bounds. Copy cost = rank_copy_cost x copies + node_copy_cost x
/// node copies.
struct PlacementObjective {
  double rank_copy_cost = 1;            // of each distinct rank of a token
  double node_copy_cost = 0;            // of each distinct node
  double imbalance_weight = 0;          // for kCopies
  std::optional<double> max_imbalance;  // max / mean load over ranks; a bound
  std::optional<double> max_copy_cost;  // per token; a bound, not for kTime
  Goal goal = Goal::kCopies;
  // For kTime. All tokens are one batch from uniform homes, sent as default_copy_mode() says.
  std::optional<LayerTimeOptions> layer_time;
};

/// Costs in proportion to the time on each level's links; a copy within a node costs 1. Just that
/// on one node, and where every node is one rank: then all links are the same.
PlacementObjective objective_for(const Cluster& cluster);

struct OptimizeOptions {
  std::uint64_t seed = 0;
  // Multiplies the moves tried. 1 takes some 0.1 s a layer for 32 experts and 100,000 tokens. Above
  // 0; infinity searches until `seconds` or `stop` ends it.
  double effort = 1;
  std::optional<double> seconds;            // for all layers; a cut-off, then the best so far; > 0
  const std::atomic<bool>* stop = nullptr;  // set by another thread: as if the time were up
  std::int32_t redundant_slots_per_rank = 0;
  // Group-limited routing: group g, a run of num_experts / num_groups experts, stays in one node.
  std::optional<std::int32_t> num_groups;
  // Without replicas, on one level and without a weight on imbalance, placements are proved optimal
  // (column_search.h) if the possible contents of a rank are no more than these. 10^7 (32 experts
  // on 4 ranks) take some 2 s a layer and 0.3 GB.
  double max_columns = 50'000;
  int num_threads = 1;  // over layers
};

/// A placement and what it costs on the tokens that it was optimized for, counted anew.
struct OptimizedPlacement {
  Placement placement;
  double copies_per_token = 0, node_copies_per_token = 0;
  double copy_cost = 0;  // per token, by the objective
  double imbalance = 1;
  bool meets_bounds = true;        // false: the bounds are missed by the least that was found
  bool is_cut_short = false;       // `seconds` or `stop` ended the search
  bool is_proved_optimal = false;  // value is the least within the bounds
  double copy_cost_bound = 0;      // no placement of these slots within the bounds costs less
  double imbalance_bound = 1;      // no placement of these slots has less
  // The goal's value here, and what no placement of these slots within the bounds can be below.
  // Seconds for kTime.
  double value = 0, value_bound = 0;
};

/// Every rank gets ceil(num_experts / ep_size) + redundant_slots_per_rank slots; those that experts
/// leave free hold replicas, each on another node as far as there are nodes with room for it. The
/// result depends on the arguments alone, unless `seconds` or `stop` ends the search.
///
/// @throws Error(kInvalidArgument) if the groups cannot be kept, a rank has more slots than there
///         are experts, effort or seconds are not above 0, or kTime lacks layer_time or is given
///         max_copy_cost
///
/// Cost: about effort x (0.1 s, with replicas 0.9 s) for 32 experts and 100,000 tokens, some
/// 0.7 s for 256 experts on 64 ranks with replicas; plus the proof, see
/// max_columns; kTime and kImbalance within max_copy_cost twice that. Per thread memory of some 50
/// bytes a choice of a distinct set and, for slots = num_experts or, with replicas where tokens are
/// too many to anneal them, the slots of all ranks, slots x (slots + ep_size) x 8 bytes, on several
/// nodes twice.
OptimizedPlacement optimize_placement(const TokenSets& sets, const Cluster& cluster,
                                      const PlacementObjective& objective,
                                      const OptimizeOptions& options);

/// All layers; `load_layer` is called once for each, from several threads. The result does not
/// depend on num_threads. A layer whose search `seconds` or `stop` ended, or that was not begun by
/// then, is at least searched with an effort of 0.02.
std::vector<OptimizedPlacement> optimize_placements(
    std::int64_t num_layers, const std::function<TokenSets(std::int64_t layer)>& load_layer,
    const Cluster& cluster, const PlacementObjective& objective, const OptimizeOptions& options,
    Progress& progress);

/// Placements from the fewest copies to the best balance, none dominated by another: the bound on
/// the imbalance is lowered in `num_points` steps from what the fewest copies give to the least
/// reachable. In ascending order of copy_cost.
/// @throws Error(kInvalidArgument) unless num_points >= 2
std::vector<OptimizedPlacement> pareto_front(const TokenSets& sets, const Cluster& cluster,
                                             const PlacementObjective& objective,
                                             const OptimizeOptions& options, int num_points);

/// Those of `points` that no other equals or beats in both copy_cost and imbalance; of equals the
/// first. In ascending order of copy_cost.
std::vector<OptimizedPlacement> without_dominated(std::vector<OptimizedPlacement> points);

/// What `placement` costs on `sets`; copy_cost_bound and meets_bounds included.
OptimizedPlacement measure_placement(const TokenSets& sets, const Cluster& cluster,
                                     const PlacementObjective& objective,
                                     const Placement& placement);

}  // namespace c2r
