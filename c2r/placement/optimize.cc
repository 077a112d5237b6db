#include "c2r/placement/optimize.h"

#include <algorithm>
#include <cmath>
#include <mutex>
#include <utility>

#include "c2r/core/error.h"
#include "c2r/core/parallel.h"
#include "c2r/placement/copy_bounds.h"
#include "c2r/placement/layer_search.h"
#include "c2r/placement/replica_search.h"

namespace c2r {
namespace {

SearchLimits limits_for(const OptimizeOptions& options) {
  SearchLimits limits{.stop = options.stop};
  if (options.seconds) {
    limits.deadline = std::chrono::steady_clock::now() +
                      std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                          std::chrono::duration<double>(*options.seconds));
  }
  return limits;
}

}  // namespace

PlacementObjective objective_for(const Cluster& cluster) {
  if (cluster.num_nodes == 1) return {};
  return {.rank_copy_cost = 1,
          .node_copy_cost =
              cluster.intra_node.bandwidth_bytes_per_s / cluster.inter_node.bandwidth_bytes_per_s};
}

OptimizedPlacement optimize_placement(const TokenSets& sets, const Cluster& cluster,
                                      const PlacementObjective& objective,
                                      const OptimizeOptions& options) {
  return search_layer(sets, cluster, objective, options, limits_for(options));
}

std::vector<OptimizedPlacement> optimize_placements(
    std::int64_t num_layers, const std::function<TokenSets(std::int64_t layer)>& load_layer,
    const Cluster& cluster, const PlacementObjective& objective, const OptimizeOptions& options,
    Progress& progress) {
  std::vector<OptimizedPlacement> results(static_cast<std::size_t>(num_layers));
  const SearchLimits all = limits_for(options);
  std::mutex mutex;
  std::int64_t num_started = 0, num_done = 0;
  parallel_for(num_layers, options.num_threads, [&](std::int64_t layer, int) {
    SearchLimits limits = all;
    if (all.deadline) {  // an equal share of what is left for each layer still to come
      const std::lock_guard lock(mutex);
      const auto now = std::chrono::steady_clock::now();
      const auto rounds =
          (num_layers - num_started++ + options.num_threads - 1) / options.num_threads;
      limits.deadline = std::min(*all.deadline, now + (*all.deadline - now) / rounds);
    }
    results[std::size_t(layer)] =
        search_layer(load_layer(layer), cluster, objective, options, limits);
    const std::lock_guard lock(mutex);
    progress.update(++num_done, num_layers);
  });
  return results;
}

std::vector<OptimizedPlacement> pareto_front(const TokenSets& sets, const Cluster& cluster,
                                             const PlacementObjective& objective,
                                             const OptimizeOptions& options, int num_points) {
  C2R_REQUIRE(num_points >= 2, kInvalidArgument, "a front needs at least 2 points, not {}",
              num_points);
  const SearchLimits limits = limits_for(options);
  const auto solve = [&](double scale, std::optional<double> max_imbalance) {
    PlacementObjective asked = objective;
    asked.imbalance_weight = scale;
    asked.max_imbalance = max_imbalance;
    asked.max_copy_cost.reset();
    return search_layer(sets, cluster, asked, options, limits);
  };
  // A weight that no saving of copies can outbid.
  const double balance_only = 100 * (objective.rank_copy_cost + objective.node_copy_cost);
  std::vector<OptimizedPlacement> met = {solve(0, {}), solve(balance_only, {})};
  const double worst = met[0].imbalance, best = met[1].imbalance;
  for (int point = 1; point + 1 < num_points; ++point) {
    // Even in the logarithm: near perfect balance small steps matter.
    const double share = static_cast<double>(point) / (num_points - 1);
    met.push_back(solve(0, worst * std::pow(best / worst, share)));
  }
  std::ranges::sort(met, {}, [](const auto& p) { return std::pair(p.copy_cost, p.imbalance); });
  std::vector<OptimizedPlacement> front;
  for (auto& point : met) {
    point.meets_bounds = true;  // of the front itself there is none
    if (front.empty() || point.imbalance < front.back().imbalance)
      front.push_back(std::move(point));
  }
  return front;
}

OptimizedPlacement measure_placement(const TokenSets& sets, const Cluster& cluster,
                                     const PlacementObjective& objective,
                                     const Placement& placement) {
  check_placement(placement);
  C2R_REQUIRE(placement.num_experts == sets.num_experts && placement.ep_size() == cluster.ep_size(),
              kInvalidArgument,
              "the placement is for {} experts on {} ranks, but the tokens choose among {} and the "
              "cluster has {} ranks",
              placement.num_experts, placement.ep_size(), sets.num_experts, cluster.ep_size());
  OptimizedPlacement result{.placement = placement};
  const SetIndex index(sets);
  if (index.num_choices() == 0) return result;
  const ReplicaState state(index, cluster, placement, /*is_fixed_to_nodes=*/false);
  const auto per_token = [&](double count) { return count / static_cast<double>(sets.num_tokens); };
  const SearchEnergy energy = energy_for(index, cluster, objective);
  const double cost = energy.cost(state.rank_copies(), state.node_copies());
  result.copies_per_token = per_token(static_cast<double>(state.rank_copies()));
  result.node_copies_per_token = per_token(static_cast<double>(state.node_copies()));
  result.copy_cost = per_token(cost);
  result.imbalance = static_cast<double>(std::ranges::max(state.loads())) / energy.mean_load;
  result.meets_bounds = energy.violation(cost, state.loads()) == 0;
  result.copy_cost_bound = per_token(
      energy.rank_cost * copies_bound(index, cluster.ep_size(), placement.slots_per_rank()) +
      energy.node_cost * copies_bound(index, cluster.num_nodes,
                                      placement.slots_per_rank() * cluster.ranks_per_node));
  return result;
}

}  // namespace c2r
