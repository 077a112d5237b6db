// The cost, the bounds and the goal's value of a placement whose token sets are served already.
#include "c2r/placement/search/measure_state.h"

#include <algorithm>

#include "c2r/placement/search/predicted_time.h"
#include "c2r/placement/search/search_energy.h"

namespace c2r {
namespace {

// `result` has its copies, loads and their bounds already.
void add_value(const SetIndex& index, const Cluster& cluster, const ReplicaState& state,
               const PlacementObjective& objective, const LeastCounts& least,
               OptimizedPlacement& result) {
  switch (objective.goal) {
    case Goal::kCopies:
      result.value = result.copy_cost + objective.imbalance_weight * (result.imbalance - 1);
      result.value_bound =
          result.copy_cost_bound + objective.imbalance_weight * (result.imbalance_bound - 1);
      break;
    case Goal::kImbalance:
      result.value = result.imbalance;
      result.value_bound = result.imbalance_bound;
      break;
    case Goal::kTime:
      result.value = predicted_s(index, cluster, state, objective);
      result.value_bound = predicted_s_bound(index, cluster, least, objective);
      break;
  }
}

}  // namespace

SearchEnergy energy_for(const SetIndex& index, std::int64_t num_tokens, const Cluster& cluster,
                        const PlacementObjective& objective) {
  const auto tokens = static_cast<double>(num_tokens);
  SearchEnergy energy{.rank_cost = objective.rank_copy_cost, .node_cost = objective.node_copy_cost};
  if (index.num_choices() > 0) {
    energy.mean_load = static_cast<double>(index.num_choices()) / cluster.ep_size();
  }
  energy.imbalance_scale = objective.imbalance_weight * tokens;
  if (objective.goal == Goal::kImbalance) {
    energy.copy_scale = 1e-3;
    energy.imbalance_scale = tokens;
  }
  if (objective.max_imbalance) energy.max_load = *objective.max_imbalance * energy.mean_load;
  if (objective.max_copy_cost) energy.max_cost = *objective.max_copy_cost * tokens;
  // A bound must weigh more than what it holds back.
  const double unit = std::max(energy.rank_cost, energy.node_cost);
  energy.load_penalty *= unit;
  return energy;
}

OptimizedPlacement measure_state(const SetIndex& index, const CopyBounds& bounds,
                                 std::int64_t num_tokens, const Cluster& cluster,
                                 const PlacementObjective& objective, const ReplicaState& state) {
  OptimizedPlacement result{.placement = state.placement()};
  if (index.num_choices() == 0) return result;
  const auto per_token = [&](double count) { return count / static_cast<double>(num_tokens); };
  const SearchEnergy energy = energy_for(index, num_tokens, cluster, objective);
  const double cost = energy.cost(state.rank_copies(), state.node_copies());
  result.copies_per_token = per_token(static_cast<double>(state.rank_copies()));
  result.node_copies_per_token = per_token(static_cast<double>(state.node_copies()));
  result.copy_cost = per_token(cost);
  result.imbalance =
      static_cast<double>(std::ranges::max(state.scenario_loads())) / energy.mean_load;
  result.violation = energy.violation(cost, state.scenario_loads());
  result.meets_bounds = result.violation == 0;
  const std::int32_t slots = state.placement().slots_per_rank();
  const LeastCounts least{
      .rank_copies = bounds.copies(cluster.ep_size(), slots),
      .node_copies = bounds.copies(cluster.num_nodes, slots * cluster.ranks_per_node),
      .busiest_load = imbalance_bound(index, cluster.ep_size(), slots) * energy.mean_load};
  result.copy_cost_bound =
      per_token(energy.rank_cost * least.rank_copies + energy.node_cost * least.node_copies);
  result.imbalance_bound = least.busiest_load / energy.mean_load;
  result.is_proved_infeasible =
      (objective.max_imbalance &&
       result.imbalance_bound > *objective.max_imbalance * (1 + kRounding)) ||
      (objective.max_copy_cost &&
       result.copy_cost_bound > *objective.max_copy_cost * (1 + kRounding));
  add_value(index, cluster, state, objective, least, result);
  result.is_proved_optimal =
      result.meets_bounds && result.value <= result.value_bound * (1 + kRounding);
  return result;
}

}  // namespace c2r
