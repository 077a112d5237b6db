// Keeps the tables of served_tables.h exact while sets are served anew.
#include "c2r/placement/search/replicas/served_tables.h"

#include <algorithm>
#include <utility>

namespace c2r {
namespace {

// The rank of each slot, or the node of each slot.
std::vector<std::int32_t> groups_of_slots(const Cluster& cluster, const Placement& placement,
                                          bool by_node) {
  std::vector<std::int32_t> groups;
  for (std::int32_t rank = 0; rank < cluster.ep_size(); ++rank) {
    groups.insert(groups.end(), static_cast<std::size_t>(placement.slots_per_rank()),
                  by_node ? cluster.node_of(RankId{rank}) : rank);
  }
  return groups;
}

}  // namespace

GroupTables::GroupTables(std::int32_t num_experts, std::vector<std::int32_t> group_of,
                         std::int32_t num_groups)
    : group_of_(std::move(group_of)),
      near_(std::ssize(group_of_), num_groups),
      alone_with_(std::ssize(group_of_), std::ssize(group_of_)),
      gain_(num_experts, num_groups),
      num_inside_(static_cast<std::size_t>(num_groups)) {}

void GroupTables::clear() {
  std::ranges::fill(near_.all(), 0);
  std::ranges::fill(alone_with_.all(), 0);
  std::ranges::fill(gain_.all(), 0);
}

void GroupTables::add(std::span<const std::uint16_t> experts, std::span<const std::int32_t> slots,
                      std::int64_t weight) {
  visited_.clear();
  for (const std::int32_t slot : slots) {
    const std::int32_t group = group_of(slot);
    if (at(num_inside_, group)++ == 0) visited_.push_back(group);
  }
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const auto own = static_cast<std::size_t>(group_of(slots[i]));
    const auto near = near_.row(slots[i]);
    for (const std::int32_t group : visited_) near[std::size_t(group)] += weight;
    if (num_inside_[own] > 1) continue;
    near[own] -= weight;
    const auto alone_with = alone_with_.row(slots[i]);
    for (const std::int32_t other : slots) alone_with[std::size_t(other)] += weight;
    alone_with[std::size_t(slots[i])] -= weight;
    const auto gain = gain_.row(experts[i]);
    for (const std::int32_t group : visited_) gain[std::size_t(group)] += weight;
    gain[own] -= weight;
  }
  for (const std::int32_t group : visited_) at(num_inside_, group) = 0;
}

ServedTables::ServedTables(const Cluster& cluster, const Placement& placement,
                           std::int32_t num_scenarios)
    : cluster_(cluster),
      num_scenarios_(static_cast<std::size_t>(num_scenarios)),
      ranks_(placement.num_experts, groups_of_slots(cluster, placement, false), cluster.ep_size()),
      slot_of_(placement.num_experts, cluster.ep_size(), -1),
      loads_(placement.slots.all().size() * num_scenarios_) {
  if (cluster.num_nodes > 1) {
    nodes_.emplace(placement.num_experts, groups_of_slots(cluster, placement, true),
                   cluster.num_nodes);
  }
  const auto slots = placement.slots.all();
  for (std::size_t slot = 0; slot < slots.size(); ++slot) {
    place(static_cast<std::int32_t>(slots[slot]), static_cast<std::int32_t>(slot));
  }
}

void ServedTables::clear() {
  ranks_.clear();
  if (nodes_) nodes_->clear();
  std::ranges::fill(loads_, 0);
}

void ServedTables::add(std::span<const std::uint16_t> experts, std::span<const std::uint16_t> ranks,
                       std::int64_t weight, std::span<const std::int64_t> scenario_weights,
                       std::int64_t sign) {
  slots_.clear();
  for (std::size_t i = 0; i < experts.size(); ++i) {
    slots_.push_back(slot_of_(experts[i], ranks[i]));
    const std::size_t begin = std::size_t(slots_.back()) * num_scenarios_;
    for (std::size_t s = 0; s < num_scenarios_; ++s) {
      loads_[begin + s] += sign * scenario_weights[s];
    }
  }
  ranks_.add(experts, slots_, sign * weight);
  if (nodes_) nodes_->add(experts, slots_, sign * weight);
}

ServedTables::Copies ServedTables::swap_delta(std::int32_t a, std::int32_t b) const {
  Copies copies{.rank = ranks_.swap_delta(a, b)};
  if (nodes_ && nodes_->group_of(a) != nodes_->group_of(b)) copies.node = nodes_->swap_delta(a, b);
  return copies;
}

ServedTables::Copies ServedTables::move_delta(std::int32_t slot, std::int32_t rank) const {
  Copies copies{.rank = ranks_.move_delta(slot, rank)};
  if (nodes_) copies.node = nodes_->move_delta(slot, cluster_.node_of(RankId{rank}));
  return copies;
}

ServedTables::Copies ServedTables::gain(std::int32_t expert, std::int32_t rank) const {
  Copies copies{.rank = ranks_.gain(expert, rank)};
  if (nodes_) {
    // Those that visit the node, but not the rank, still need the rank.
    copies.node = std::min(copies.rank, nodes_->gain(expert, cluster_.node_of(RankId{rank})));
  }
  return copies;
}

}  // namespace c2r
