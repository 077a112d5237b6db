// The fewest ranks that serve one token, and among those the least loaded: exact, by branch and
// bound.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "c2r/placement/cluster.h"

namespace c2r {

/// Chooses for one token after another; keeps its scratch.
class CoverSolver {
 public:
  explicit CoverSolver(const Cluster& cluster);

  /// Fills `served_by` [k] with a host of each expert, so that as few distinct ranks are used as
  /// any choice needs. Ties: the fewest nodes, then the least sum over experts of the load of their
  /// rank, then the first found. An expert that two chosen ranks host goes to the less loaded, then
  /// lower one.
  ///
  /// Two limits keep a step cheap: of a token's hosts the first kMaxHosts are looked at, in the
  /// order of single hosts, then first hosts, then the rest; and after kMaxSteps partial covers the
  /// best so far is taken. Within them the cover is the smallest.
  ///
  /// @param hosts [k <= kMaxHosts], the ranks of each expert, ascending and not empty
  /// @param loads of every rank
  ///
  /// Cost: O(k) if the ranks of experts with one host serve all; else the product of the replica
  /// numbers of the experts left, cut off by the best so far.
  void solve(std::span<const std::span<const std::uint16_t>> hosts,
             std::span<const std::int64_t> loads, std::span<std::uint16_t> served_by);

  static constexpr std::int32_t kMaxHosts = 64, kMaxSteps = 4096;

 private:
  using RankSet = std::uint64_t;  // bit i = rank_of_bit_[i]

  RankSet bit_of(std::uint16_t rank);
  void number_hosts(std::span<const std::span<const std::uint16_t>> hosts);
  void branch(RankSet used, std::int32_t num_used, std::uint64_t open);
  void consider(RankSet used, std::int32_t num_used);

  std::int32_t ranks_per_node_ = 1;
  std::span<const std::int64_t> loads_;
  std::vector<std::int32_t> bit_of_rank_;   // [ep_size], -1 = none yet
  std::vector<std::uint16_t> rank_of_bit_;  // [<= kMaxHosts]
  std::vector<std::int32_t> bit_of_node_;   // [num_nodes], -1 = none yet
  std::vector<std::uint64_t> node_of_bit_;  // [<= kMaxHosts], as a bit
  std::vector<RankSet> hosts_;              // [k]
  RankSet best_ = 0;
  std::int32_t best_size_ = 0;
  std::pair<std::int32_t, std::int64_t> best_ties_;  // nodes, load
  std::int32_t steps_ = 0;
};

}  // namespace c2r
