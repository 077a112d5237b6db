// Finds the fewest ranks that serve one token, and among those the least loaded: exactly, by branch
// and bound. The optimizer and ReplicaRule::kFewestRanks both call it, so they count the same
// copies.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "c2r/placement/cluster.h"

namespace c2r {

/// Chooses for one token after another under hosts that may change between them.
class CoverSolver {
 public:
  static constexpr std::int32_t kNoNode = -1;

  /// No rank hosts any of the experts yet.
  CoverSolver(const Cluster& cluster, std::int32_t num_experts);

  /// @param ranks that host `expert`, ascending and not empty
  /// @throws Error(kInvalidArgument) if the expert or a rank is out of range
  void set_hosts(std::int32_t expert, std::span<const std::uint16_t> ranks);

  /// Fills `served_by` [k] with a host of each expert, so that no choice of hosts uses fewer
  /// distinct ranks. Ties: the fewest nodes, then, if a home is given, a choice with its node; then
  /// the least sum over experts of the load of their rank, then the lexicographically lowest ranks.
  /// An expert that two chosen ranks host goes to the less loaded, then lower one. The numbers of
  /// ranks and of nodes therefore depend on the hosts alone.
  ///
  /// Two limits keep a token cheap: in clusters of more than kMaxHosts ranks, only the first
  /// kMaxHosts of a token's hosts are looked at, in the order of single hosts, then first hosts,
  /// then the rest; and after kMaxSteps partial covers the best so far is taken. Within them the
  /// cover is the smallest. 8 experts with 3 hosts each, or 12 with 2, have at most
  /// 3^0 + ... + 3^7 = 3280 and 2^0 + ... + 2^11 = 4095 partial covers.
  ///
  /// @param experts [k <= kMaxTopK], distinct, each of which has a host
  /// @param loads [ep_size]
  /// @param home_node the node whose copies are cheap, or kNoNode
  /// @throws Error(kInvalidArgument) if there are more than kMaxTopK experts or one is out of
  ///         range, or if `loads` or `served_by` has another length
  ///
  /// Cost: O(k) if the ranks of experts with one host serve all, and O(hosts) if no rank hosts two
  /// of the experts with a choice and all ranks are in one node or each in a node of its own; else
  /// the product of the replica numbers of the experts left, cut off by the best so far.
  void solve(std::span<const std::uint16_t> experts, std::span<const std::int64_t> loads,
             std::span<std::uint16_t> served_by, std::int32_t home_node = kNoNode);

  /// solve() in two steps, for a token that is served from several homes: which covers are the
  /// smallest depends on its hosts alone, so set_token() is called once and choose() for each home.
  /// choose() costs O(k) for each smallest cover.
  /// @throws as solve()
  void set_token(std::span<const std::uint16_t> experts);
  void choose(std::span<const std::int64_t> loads, std::span<std::uint16_t> served_by,
              std::int32_t home_node = kNoNode);
  /// @returns whether choose() depends on loads or the home for the last token that was set
  bool has_choice() const;

  static constexpr std::int32_t kMaxHosts = 64, kMaxSteps = 4096;

 private:
  using RankSet = std::uint64_t;  // bit i = rank_of_bit_[i]; bits ascend with ranks
  void number_hosts(std::span<const std::uint16_t> experts);
  void number(std::span<const std::uint16_t> ranks);
  RankSet bits_of(std::span<const std::uint16_t> ranks) const;
  RankSet node_bit(RankSet rank) const;
  void branch(RankSet used, RankSet nodes, std::uint64_t open, RankSet tried);
  void consider(RankSet used, RankSet nodes);
  RankSet best_cover(std::int32_t home_node) const;
  std::int64_t load_of(RankSet used) const;
  RankSet least_loaded(RankSet ranks) const;
  bool are_separable() const;
  RankSet best_of_each(std::int32_t home_node) const;

  std::int32_t ranks_per_node_ = 1, num_nodes_ = 1;
  std::vector<std::vector<std::uint16_t>> hosts_of_expert_;  // [num_experts]
  std::vector<RankSet> bits_of_expert_;  // [num_experts], if all ranks have a bit, else empty
  std::span<const std::int64_t> loads_;
  std::vector<std::int32_t> bit_of_rank_;      // [ep_size], -1 = none
  std::vector<std::uint16_t> rank_of_bit_;     // [<= kMaxHosts]
  std::vector<RankSet> node_of_bit_;           // [<= kMaxHosts], the bits of the same node
  std::vector<RankSet> bits_of_node_;          // [num_nodes]
  std::vector<std::uint16_t> hosts_of_token_;  // [<= kMaxHosts], scratch
  std::vector<RankSet> hosts_, choices_;       // [k], and those of them with several ranks
  std::vector<RankSet> covers_ = {0};          // of the fewest ranks, then nodes
  // Every choice of hosts is a smallest cover; covers_ holds the ranks of experts without a choice.
  bool is_separable_ = false;
  std::int32_t fewest_ranks_ = 0, fewest_nodes_ = 0;
  std::int32_t steps_ = 0;
};

}  // namespace c2r
