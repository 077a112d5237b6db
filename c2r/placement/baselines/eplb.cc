// EPLB: replicates the experts with the highest load per replica and packs slots evenly.
#include "c2r/placement/baselines/eplb.h"

#include <algorithm>
#include <numeric>

#include "c2r/core/error.h"

namespace c2r {
namespace {

struct Packing {
  std::vector<std::size_t> pack;      // [num_items]
  std::vector<std::size_t> position;  // [num_items], in its pack
};

Packing pack_balanced(std::span<const float> weights, std::size_t num_packs) {
  const std::size_t capacity = weights.size() / num_packs;
  Packing packing{.pack = std::vector<std::size_t>(weights.size()),
                  .position = std::vector<std::size_t>(weights.size())};
  std::vector<std::size_t> order(weights.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  if (capacity == 1) {
    packing.pack = order;
    return packing;
  }
  std::ranges::stable_sort(order, [&](auto a, auto b) { return weights[a] > weights[b]; });
  std::vector<float> pack_weight(num_packs);
  std::vector<std::size_t> pack_size(num_packs);
  for (const std::size_t item : order) {
    std::size_t lightest = num_packs;
    for (std::size_t pack = 0; pack < num_packs; ++pack) {
      if (pack_size[pack] == capacity) continue;
      if (lightest == num_packs || pack_weight[pack] < pack_weight[lightest]) lightest = pack;
    }
    packing.pack[item] = lightest;
    packing.position[item] = pack_size[lightest]++;
    pack_weight[lightest] += weights[item];
  }
  return packing;
}

struct Replication {
  std::vector<std::size_t> item_of_slot;      // [num_slots]; slot i < num_items holds item i
  std::vector<std::int32_t> replica_of_slot;  // [num_slots]
  std::vector<std::int32_t> num_replicas;     // [num_items]
};

Replication replicate(std::span<const float> loads, std::size_t num_slots) {
  Replication result{.item_of_slot = std::vector<std::size_t>(num_slots),
                     .replica_of_slot = std::vector<std::int32_t>(num_slots),
                     .num_replicas = std::vector<std::int32_t>(loads.size(), 1)};
  std::iota(result.item_of_slot.begin(), result.item_of_slot.end(), std::size_t{0});
  const auto load_per_replica = [&](std::size_t item) {
    return loads[item] / static_cast<float>(result.num_replicas[item]);
  };
  for (std::size_t slot = loads.size(); slot < num_slots; ++slot) {
    std::size_t hottest = 0;
    for (std::size_t item = 1; item < loads.size(); ++item) {
      if (load_per_replica(item) > load_per_replica(hottest)) hottest = item;
    }
    result.item_of_slot[slot] = hottest;
    result.replica_of_slot[slot] = result.num_replicas[hottest]++;
  }
  return result;
}

// The experts of each node: whole groups, in the order in which they were packed.
std::vector<std::vector<std::size_t>> pack_groups_to_nodes(std::span<const float> loads,
                                                           std::size_t num_groups,
                                                           std::size_t num_nodes) {
  const std::size_t group_size = loads.size() / num_groups;
  std::vector<float> group_loads(num_groups);
  for (std::size_t e = 0; e < loads.size(); ++e) group_loads[e / group_size] += loads[e];
  const Packing packing = pack_balanced(group_loads, num_nodes);
  std::vector<std::vector<std::size_t>> experts(num_nodes,
                                                std::vector<std::size_t>(loads.size() / num_nodes));
  for (std::size_t e = 0; e < loads.size(); ++e) {
    const std::size_t group = e / group_size;
    experts[packing.pack[group]][packing.position[group] * group_size + e % group_size] = e;
  }
  return experts;
}

void place_node(std::span<const float> loads, std::span<const std::size_t> experts,
                std::size_t num_ranks, std::size_t first_slot, EplbResult& result) {
  const std::size_t num_slots = result.expert_of_slot.size() / (loads.size() / experts.size());
  std::vector<float> node_loads;
  for (const std::size_t e : experts) node_loads.push_back(loads[e]);
  const Replication replication = replicate(node_loads, num_slots);
  std::vector<float> slot_loads;
  for (const std::size_t item : replication.item_of_slot) {
    slot_loads.push_back(node_loads[item] / static_cast<float>(replication.num_replicas[item]));
  }
  const Packing packing = pack_balanced(slot_loads, num_ranks);
  for (std::size_t i = 0; i < num_slots; ++i) {
    const std::size_t slot =
        first_slot + packing.pack[i] * (num_slots / num_ranks) + packing.position[i];
    result.expert_of_slot[slot] =
        ExpertId{static_cast<std::int32_t>(experts[replication.item_of_slot[i]])};
    result.replica_of_slot[slot] = replication.replica_of_slot[i];
  }
  for (std::size_t i = 0; i < experts.size(); ++i) {
    result.num_replicas[experts[i]] = replication.num_replicas[i];
  }
}

void check_eplb(std::int64_t num_experts, const EplbOptions& o) {
  C2R_REQUIRE(num_experts >= 1 && o.num_groups >= 1 && o.num_nodes >= 1 && o.num_ranks >= 1 &&
                  num_experts % o.num_groups == 0 && o.num_ranks % o.num_nodes == 0 &&
                  o.num_slots % o.num_ranks == 0 && o.num_slots >= num_experts,
              kInvalidArgument,
              "EPLB cannot place {} experts in {} groups into {} slots of {} ranks on {} nodes: "
              "groups must divide experts, nodes must divide ranks, ranks must divide slots",
              num_experts, o.num_groups, o.num_slots, o.num_ranks, o.num_nodes);
}

}  // namespace

EplbResult rebalance_eplb(std::span<const float> loads, const EplbOptions& options) {
  check_eplb(std::ssize(loads), options);
  const bool is_hierarchical = options.num_groups % options.num_nodes == 0;
  const auto num_groups = static_cast<std::size_t>(is_hierarchical ? options.num_groups : 1);
  const auto num_nodes = static_cast<std::size_t>(is_hierarchical ? options.num_nodes : 1);
  const auto num_ranks = static_cast<std::size_t>(options.num_ranks);
  const auto num_slots = static_cast<std::size_t>(options.num_slots);
  EplbResult result{.expert_of_slot = std::vector<ExpertId>(num_slots),
                    .replica_of_slot = std::vector<std::int32_t>(num_slots),
                    .num_replicas = std::vector<std::int32_t>(loads.size())};
  const auto experts = pack_groups_to_nodes(loads, num_groups, num_nodes);
  for (std::size_t node = 0; node < num_nodes; ++node) {
    place_node(loads, experts[node], num_ranks / num_nodes, node * (num_slots / num_nodes), result);
  }
  return result;
}

}  // namespace c2r
