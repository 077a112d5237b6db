// Predicts a layer's time from the sets' ranks as the search serves them.
#include "c2r/placement/search/predicted_time.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "c2r/core/at.h"
#include "c2r/placement/cost/cover_size.h"
#include "c2r/placement/cost/reach.h"
#include "c2r/placement/cost/volume.h"

namespace c2r {
namespace {

// Every token once from each home.
struct Counts {
  std::vector<std::int64_t> choices, tokens_on_rank, tokens_on_node;
};

double time_of(const Counts& counts, std::int64_t num_tokens, const Cluster& cluster,
               const PlacementObjective& objective) {
  const std::int64_t ep_size = cluster.ep_size();
  Reach reach{.denominator = ep_size,
              .num_tokens = std::vector<std::int64_t>(std::size_t(ep_size), num_tokens),
              .choices_on_rank = {ep_size, ep_size},
              .tokens_on_rank = {ep_size, ep_size},
              .tokens_on_node = {ep_size, cluster.num_nodes}};
  for (std::int64_t home = 0; home < ep_size; ++home) {
    std::ranges::copy(counts.choices, reach.choices_on_rank.row(home).begin());
    std::ranges::copy(counts.tokens_on_rank, reach.tokens_on_rank.row(home).begin());
    std::ranges::copy(counts.tokens_on_node, reach.tokens_on_node.row(home).begin());
  }
  const TrafficModel traffic = with_copy_mode(
      default_traffic(cluster), objective.copy_mode.value_or(default_copy_mode(cluster)));
  return predict_layer_time(volume_of(reach, traffic), cluster, *objective.layer_time)
      .predicted_total_s;
}

}  // namespace

double predicted_s(const SetIndex& index, const Cluster& cluster, const ReplicaState& state,
                   const PlacementObjective& objective) {
  const auto ep_size = std::size_t(cluster.ep_size());
  double slowest = 0;
  for (std::size_t scenario = 0; scenario < std::size_t(index.num_scenarios()); ++scenario) {
    const auto loads = state.scenario_loads().subspan(scenario * ep_size, ep_size);
    Counts counts{.choices = {loads.begin(), loads.end()},
                  .tokens_on_rank = std::vector<std::int64_t>(ep_size),
                  .tokens_on_node = std::vector<std::int64_t>(std::size_t(cluster.num_nodes))};
    std::int64_t num_tokens = 0;
    for (std::int64_t set = 0; set < index.num_sets(); ++set) {
      const std::int64_t weight = index.scenario_weights(set)[scenario];
      num_tokens += weight;
      for_each_distinct(
          cluster, state.ranks_of(set),
          [&](auto rank) { at(counts.tokens_on_rank, rank) += weight; },
          [&](auto node) { at(counts.tokens_on_node, node) += weight; });
    }
    slowest = std::max(slowest, time_of(counts, num_tokens, cluster, objective));
  }
  return slowest;
}

double predicted_s_bound(const SetIndex& index, const Cluster& cluster, const LeastCounts& least,
                         const PlacementObjective& objective) {
  const auto even = [](double total, std::int32_t num_parts) {
    const auto part = static_cast<std::int64_t>(std::floor(total / num_parts));
    return std::vector<std::int64_t>(static_cast<std::size_t>(num_parts), part);
  };
  const std::int32_t ep_size = cluster.ep_size();
  return time_of({.choices = even(least.busiest_load * ep_size, ep_size),
                  .tokens_on_rank = even(least.rank_copies, ep_size),
                  .tokens_on_node = even(least.node_copies, cluster.num_nodes)},
                 index.total_weight(), cluster, objective);
}

}  // namespace c2r
