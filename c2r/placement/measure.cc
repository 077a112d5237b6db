// Measures one placement: builds the state that a search would track and reads its cost.
#include "c2r/placement/measure.h"

#include "c2r/core/error.h"
#include "c2r/placement/search/copy_bounds.h"
#include "c2r/placement/search/measure_state.h"
#include "c2r/placement/search/replicas/replica_state.h"
#include "c2r/placement/search/search_energy.h"
#include "c2r/placement/search/set_index.h"

namespace c2r {

PlacementObjective objective_for(const Cluster& cluster) {
  if (cluster.num_nodes == 1 || cluster.ranks_per_node == 1) return {};
  return {.rank_copy_cost = 1,
          .node_copy_cost =
              cluster.intra_node.bandwidth_bytes_per_s / cluster.inter_node.bandwidth_bytes_per_s};
}

void set_imbalance(double imbalance, const PlacementObjective& objective,
                   OptimizedPlacement& measured) {
  const double weight = objective.goal == Goal::kImbalance ? 1
                        : objective.goal == Goal::kCopies  ? objective.imbalance_weight
                                                           : 0;
  measured.value += weight * (imbalance - measured.imbalance);
  measured.imbalance = imbalance;
  if (!objective.max_imbalance) return;
  const double excess = imbalance - *objective.max_imbalance;
  const bool is_over = excess > kRounding * *objective.max_imbalance;
  const bool is_affordable =
      !objective.max_copy_cost || measured.copy_cost <= *objective.max_copy_cost * (1 + kRounding);
  measured.meets_bounds = !is_over && is_affordable;
  // In the same unit for all layers that are compared; a miss of max_copy_cost keeps its own.
  if (measured.meets_bounds || is_affordable) measured.violation = is_over ? excess : 0;
  measured.is_proved_optimal = measured.is_proved_optimal && measured.meets_bounds;
}

OptimizedPlacement measure_placement(const TokenSets& sets, const Cluster& cluster,
                                     const PlacementObjective& objective,
                                     const Placement& placement) {
  check_token_sets(sets);
  check_cluster(cluster);
  check_placement(placement);
  C2R_REQUIRE(placement.num_experts == sets.num_experts && placement.ep_size() == cluster.ep_size(),
              kInvalidArgument,
              "the placement is for {} experts on {} ranks, but the tokens choose among {} and the "
              "cluster has {} ranks",
              placement.num_experts, placement.ep_size(), sets.num_experts, cluster.ep_size());
  const SetIndex index(sets);
  const ReplicaState state(index, cluster, placement, /*is_fixed_to_nodes=*/false);
  return measure_state(index, CopyBounds(index), sets.num_tokens, cluster, objective, state);
}

}  // namespace c2r
