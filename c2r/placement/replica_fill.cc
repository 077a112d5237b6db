#include "c2r/placement/replica_fill.h"

#include <algorithm>

#include "c2r/core/error.h"

namespace c2r {
namespace {

class ReplicaFill {
 public:
  ReplicaFill(const SetIndex& index, const Cluster& cluster, bool is_fixed_to_nodes,
              std::vector<std::vector<std::int32_t>> experts_of_rank)
      : index_(index),
        cluster_(cluster),
        is_fixed_to_nodes_(is_fixed_to_nodes),
        experts_of_rank_(std::move(experts_of_rank)),
        hosts_(static_cast<std::size_t>(index.num_experts())),
        gain_(index.num_experts(), cluster.ep_size()) {
    for (std::size_t rank = 0; rank < experts_of_rank_.size(); ++rank) {
      for (const std::int32_t e : experts_of_rank_[rank]) {
        hosts_[std::size_t(e)].push_back(static_cast<std::int32_t>(rank));
      }
    }
    for (std::int64_t set = 0; set < index.num_sets(); ++set) {
      offsets_.push_back(served_by_.size());
      for (const std::uint16_t e : index.experts(set)) served_by_.push_back(hosts_[e][0]);
      count(set, 1);
    }
  }

  Placement run(std::int32_t slots_per_rank) {
    const auto capacity = static_cast<std::size_t>(slots_per_rank);
    for (;;) {
      std::int32_t best_expert = -1, best_rank = -1;
      std::int64_t best_gain = -1;
      for (std::int32_t e = 0; e < index_.num_experts(); ++e) {
        for (std::int32_t rank = 0; rank < cluster_.ep_size(); ++rank) {
          if (gain_(e, rank) <= best_gain) continue;
          if (experts_of_rank_[std::size_t(rank)].size() == capacity) continue;
          if (!is_allowed(e, rank)) continue;
          best_expert = e, best_rank = rank, best_gain = gain_(e, rank);
        }
      }
      if (best_expert < 0) break;
      add(best_expert, best_rank);
    }
    Placement placement{.num_experts = index_.num_experts(),
                        .slots = {cluster_.ep_size(), slots_per_rank}};
    for (std::int32_t rank = 0; rank < cluster_.ep_size(); ++rank) {
      const auto& experts = experts_of_rank_[std::size_t(rank)];
      C2R_REQUIRE(experts.size() == capacity, kInvalidArgument,
                  "rank {} has {} slots, but its node has too few experts for them", rank,
                  slots_per_rank);
      std::ranges::transform(experts, placement.slots.row(rank).begin(),
                             [](std::int32_t e) { return ExpertId{e}; });
    }
    return placement;
  }

 private:
  std::int32_t* ranks_of(std::int64_t set) { return &served_by_[offsets_[std::size_t(set)]]; }

  bool is_allowed(std::int32_t expert, std::int32_t rank) const {
    const std::int32_t node = cluster_.node_of(RankId{rank});
    bool is_in_node = false;
    for (const std::int32_t host : hosts_[std::size_t(expert)]) {
      if (host == rank) return false;
      is_in_node |= cluster_.node_of(RankId{host}) == node;
    }
    if (is_fixed_to_nodes_) return is_in_node;
    return !is_in_node || std::ssize(hosts_[std::size_t(expert)]) >= cluster_.num_nodes;
  }

  // Adds or takes away what a set says: an expert that is alone on its rank could as well be served
  // on any other rank that the token visits.
  void count(std::int64_t set, std::int64_t sign) {
    const auto experts = index_.experts(set);
    const std::int32_t* ranks = ranks_of(set);
    const std::int32_t* end = ranks + experts.size();
    for (std::size_t i = 0; i < experts.size(); ++i) {
      if (std::count(ranks, end, ranks[i]) > 1) continue;
      for (std::size_t other = 0; other < experts.size(); ++other) {
        if (other == i || std::find(ranks, ranks + other, ranks[other]) != ranks + other) continue;
        gain_(experts[i], ranks[other]) += sign * index_.weight(set);
      }
    }
  }

  void add(std::int32_t expert, std::int32_t rank) {
    experts_of_rank_[std::size_t(rank)].push_back(expert);
    hosts_[std::size_t(expert)].push_back(rank);
    for (const std::int32_t set : index_.sets_of(expert)) {
      const auto experts = index_.experts(set);
      std::int32_t* ranks = ranks_of(set);
      std::int32_t* end = ranks + experts.size();
      const auto at = std::ranges::find(experts, expert) - experts.begin();
      if (std::count(ranks, end, ranks[at]) > 1 || std::find(ranks, end, rank) == end) continue;
      count(set, -1);
      ranks[at] = rank;
      count(set, 1);
    }
  }

  const SetIndex& index_;
  const Cluster& cluster_;
  bool is_fixed_to_nodes_;
  std::vector<std::vector<std::int32_t>> experts_of_rank_, hosts_;
  std::vector<std::size_t> offsets_;     // [num_sets], into served_by_
  std::vector<std::int32_t> served_by_;  // the rank of each expert of each set
  Matrix<std::int64_t> gain_;            // [num_experts, ep_size]
};

}  // namespace

Placement fill_with_replicas(const SetIndex& index, const Cluster& cluster, bool is_fixed_to_nodes,
                             std::int32_t slots_per_rank,
                             std::vector<std::vector<std::int32_t>> experts_of_rank) {
  return ReplicaFill(index, cluster, is_fixed_to_nodes, std::move(experts_of_rank))
      .run(slots_per_rank);
}

}  // namespace c2r
