// Contiguous experts, or contiguous groups on the nodes that a search of their own gives them.
#include "c2r/placement/search/first_ranks.h"

#include <algorithm>
#include <map>

#include "c2r/core/at.h"
#include "c2r/placement/search/layer_search.h"

namespace c2r {
namespace {

// The sets of groups that tokens choose: they are few.
TokenSets sets_of_groups(const TokenSets& sets, std::int32_t num_groups) {
  const std::int32_t group_size = sets.num_experts / num_groups;
  std::map<std::vector<ExpertId>, std::int64_t> tokens_of;
  std::vector<ExpertId> key;
  for (std::int64_t set = 0; set < sets.num_sets(); ++set) {
    key.clear();
    for (const ExpertId e : sets.experts.row(set)) {
      const ExpertId group{static_cast<std::int32_t>(e) / group_size};
      if (e != kNoExpert && (key.empty() || key.back() != group)) key.push_back(group);
    }
    if (!key.empty()) tokens_of[key] += at(sets.multiplicity, set);
  }
  TokenSets groups{.num_experts = num_groups,
                   .num_tokens = sets.num_tokens,
                   .experts = {std::ssize(tokens_of), sets.top_k(), kNoExpert}};
  for (const auto& [experts, num_tokens] : tokens_of) {
    std::ranges::copy(experts, groups.experts.row(std::ssize(groups.multiplicity)).begin());
    groups.multiplicity.push_back(num_tokens);
  }
  return groups;
}

}  // namespace

std::vector<std::int32_t> first_ranks(const TokenSets& sets, const Cluster& cluster,
                                      const OptimizeOptions& options, const SearchLimits& limits) {
  const std::int32_t base = (sets.num_experts + cluster.ep_size() - 1) / cluster.ep_size();
  std::vector<std::int32_t> rank_of(std::size_t(base) * std::size_t(cluster.ep_size()));
  for (std::size_t item = 0; item < rank_of.size(); ++item) {
    rank_of[item] = static_cast<std::int32_t>(item) / base;
  }
  if (!options.num_groups || *options.num_groups == cluster.num_nodes) return rank_of;
  const std::int32_t group_size = sets.num_experts / *options.num_groups;
  const Cluster nodes_as_ranks{.num_nodes = 1, .ranks_per_node = cluster.num_nodes};
  const Placement groups =
      search_layer(sets_of_groups(sets, *options.num_groups), nodes_as_ranks, {},
                   {.seed = options.seed, .effort = options.effort}, limits)
          .placement;
  std::int32_t place = 0;
  for (const ExpertId group : groups.slots.all()) {
    for (std::int32_t i = 0; i < group_size; ++i) {
      at(rank_of, static_cast<std::int32_t>(group) * group_size + i) = place++ / base;
    }
  }
  return rank_of;
}

}  // namespace c2r
