// Turns the slots of a placement into the experts of a partition problem and anneals that.
#include "c2r/placement/search/replicas/slot_search.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "c2r/core/at.h"

namespace c2r {

TokenSets served_slots(const SetIndex& index, const ReplicaState& state) {
  const auto& slots = state.placement().slots;
  Matrix<std::int32_t> slot_of(index.num_experts(), slots.rows());
  std::int32_t num_slots = 0;
  for (std::int64_t rank = 0; rank < slots.rows(); ++rank) {
    for (const ExpertId e : slots.row(rank)) {
      slot_of(static_cast<std::int64_t>(e), rank) = num_slots++;
    }
  }
  std::size_t top_k = 0;
  for (std::int64_t set = 0; set < index.num_sets(); ++set) {
    top_k = std::max(top_k, index.experts(set).size());
  }
  TokenSets served{.num_experts = num_slots,
                   .num_tokens = index.total_weight(),
                   .experts = {index.num_sets(), std::int64_t(top_k), kNoExpert}};
  served.multiplicity.reserve(static_cast<std::size_t>(index.num_sets()));
  for (std::int64_t set = 0; set < index.num_sets(); ++set) {
    const auto experts = index.experts(set);
    const auto ranks = state.ranks_of(set);
    const auto row = served.experts.row(set);
    for (std::size_t i = 0; i < experts.size(); ++i) {
      row[i] = ExpertId{slot_of(experts[i], ranks[i])};
    }
    served.multiplicity.push_back(index.weight(set));
  }
  if (index.num_scenarios() > 1) {
    served.multiplicity_in = {index.num_sets(), index.num_scenarios()};
    for (std::int64_t set = 0; set < index.num_sets(); ++set) {
      std::ranges::copy(index.scenario_weights(set), served.multiplicity_in.row(set).begin());
    }
  }
  return served;
}

namespace {

// Every slot is an item; the other slots of its expert are its other_replicas.
PartitionProblem slots_as_items(const SetIndex& served, const Cluster& cluster,
                                const SearchEnergy& energy, bool is_fixed_to_nodes,
                                const Placement& placement) {
  PartitionProblem problem{
      .index = &served, .cluster = cluster, .num_items = served.num_experts(), .energy = energy};
  for (std::int32_t rank = 0; rank < cluster.ep_size(); ++rank) {
    problem.domain_of_rank.push_back(is_fixed_to_nodes ? cluster.node_of(RankId{rank}) : 0);
  }
  const auto slots = placement.slots.all();
  std::vector<std::vector<std::int32_t>> items_of(static_cast<std::size_t>(placement.num_experts));
  for (std::size_t item = 0; item < slots.size(); ++item) {
    at(items_of, slots[item]).push_back(static_cast<std::int32_t>(item));
  }
  for (std::size_t item = 0; item < slots.size(); ++item) {
    problem.other_replicas.push_back(at(items_of, slots[item]));
    std::erase(problem.other_replicas.back(), static_cast<std::int32_t>(item));
  }
  return problem;
}

}  // namespace

Placement anneal_slots(const SetIndex& index, const Cluster& cluster, const SearchEnergy& energy,
                       bool is_fixed_to_nodes, const PartitionEffort& effort,
                       const SearchLimits& limits, const ReplicaState& state) {
  const Placement& start = state.placement();
  const SetIndex served(served_slots(index, state));
  const PartitionProblem problem =
      slots_as_items(served, cluster, energy, is_fixed_to_nodes, start);
  std::vector<std::int32_t> rank_of(static_cast<std::size_t>(problem.num_items));
  for (std::int32_t item = 0; item < problem.num_items; ++item) {
    at(rank_of, item) = item / start.slots_per_rank();
  }
  rank_of = anneal_partition(problem, effort, limits, std::move(rank_of));
  Placement placement = start;
  std::vector<std::int64_t> next_slot(static_cast<std::size_t>(cluster.ep_size()));
  for (std::size_t item = 0; item < rank_of.size(); ++item) {
    const auto rank = std::size_t(rank_of[item]);
    placement.slots(rank_of[item], next_slot[rank]++) = start.slots.all()[item];
  }
  return placement;
}

}  // namespace c2r
