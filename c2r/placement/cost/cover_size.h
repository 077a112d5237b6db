// Counts how many ranks and nodes serve one token at least, without choosing them. A search judges
// a change of a placement by these numbers, ten times faster than cover.h chooses the ranks.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "c2r/placement/cluster.h"
#include "c2r/routing/routing.h"

namespace c2r {

/// Fewer ranks are better, then fewer nodes.
struct CoverSize {
  std::uint8_t ranks = 0, nodes = 0;

  bool operator<(const CoverSize& other) const {
    return ranks != other.ranks ? ranks < other.ranks : nodes < other.nodes;
  }
};

/// Calls on_rank(rank) and on_node(node) once for each distinct one of `ranks`, which are few.
template <class OnRank, class OnNode>
void for_each_distinct(const Cluster& cluster, std::span<const std::uint16_t> ranks,
                       const OnRank& on_rank, const OnNode& on_node) {
  for (auto rank = ranks.begin(); rank != ranks.end(); ++rank) {
    const auto is_new = [&](const auto& same) { return std::none_of(ranks.begin(), rank, same); };
    const std::int32_t node = cluster.node_of(RankId{*rank});
    if (is_new([&](auto other) { return other == *rank; })) on_rank(*rank);
    if (is_new([&](auto other) { return cluster.node_of(RankId{other}) == node; })) on_node(node);
  }
}

/// Counts for one token after another under hosts that change.
class CoverCounter {
 public:
  static constexpr std::int32_t kMaxRanks = 64, kMaxSteps = 4096;

  /// @returns whether `cluster` has at most kMaxRanks ranks
  static bool fits(const Cluster& cluster) { return cluster.ep_size() <= kMaxRanks; }
  /// No rank hosts any of the experts yet.
  /// @param cluster one that fits()
  CoverCounter(const Cluster& cluster, std::int32_t num_experts);

  /// Adds `rank` to the hosts of `expert`, or takes it away.
  void flip(std::int32_t expert, std::int32_t rank);

  /// @param experts at most kMaxTopK, each of which has a host
  /// @returns the size of the cover that CoverSolver chooses; after kMaxSteps partial covers the
  ///          best so far
  CoverSize count(std::span<const std::uint16_t> experts);
  /// @returns the numbers of distinct ranks and nodes of `ranks`
  CoverSize size_of(std::span<const std::uint16_t> ranks) const;

 private:
  using RankSet = std::uint64_t;  // bit r = rank r

  void branch(RankSet used, std::int32_t num_used, std::size_t next_open);
  std::uint8_t num_nodes(RankSet used) const;

  bool has_one_node_ = true;
  std::vector<RankSet> ranks_of_node_of_;  // [ep_size], the ranks in the same node
  std::vector<RankSet> hosts_, only_;      // [num_experts]; the host if it is the only one, else 0
  std::array<RankSet, kMaxTopK> open_{};   // hosts of the experts that have a choice
  std::size_t num_open_ = 0;
  CoverSize best_;
  std::int32_t steps_ = 0;
};

}  // namespace c2r
