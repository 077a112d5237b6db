// Which rank serves each chosen expert of a token, where an expert has several replicas.
//
// The rule decides how many copies of the token are sent, so every predicted number names it.
// Experts with one replica leave it no choice: without replicas all rules agree.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "c2r/core/ids.h"
#include "c2r/placement/cluster.h"
#include "c2r/placement/placement.h"

namespace c2r {

enum class ReplicaRule {
  /// Fewest ranks, greedily: repeatedly the rank that hosts most of the token's experts not yet
  /// served, which then serves them all. Ties go to the home rank; then to a rank in the home node
  /// or in a node that already serves this token; then to the rank with the least load so far;
  /// then to the lower rank. "Load so far" counts the (token, expert) choices that earlier tokens
  /// of the same home rank gave to the rank, and earlier steps of this token: a rank knows it
  /// without asking another, so that a runtime can follow the rule and agree exactly.
  kGreedyCover,
  /// Each expert by itself: the home rank's own replica, else one in the home node, else one
  /// elsewhere. Where several are left, one is fixed for each (home rank, expert) by a seeded fair
  /// deal: of the ranks that must choose among the same replicas, the numbers that use each differ
  /// by at most one. This is SGLang's `static` algorithm, but not its random numbers.
  kLocalFirst,
  /// Each (token, expert) by itself, all replicas equally likely: a hash of seed, token and expert,
  /// whatever the home rank, so that layers given the same seed draw alike. SGLang's `dynamic`,
  /// made repeatable.
  kRandom,
};

/// "greedy-cover", "local-first", "random": the same in options, JSON and tables.
std::string_view name_of(ReplicaRule rule);
/// @throws Error(kInvalidArgument), listing the names
ReplicaRule parse_replica_rule(std::string_view name);

/// "Served by no rank": what a masked choice gets.
inline constexpr RankId kNoRank{-1};

/// Applies a rule to one token after another. Which rank serves what depends on the placement, the
/// cluster, the rule, the seed and, for kGreedyCover, the earlier tokens of the same home rank in
/// their order; on nothing else.
class ReplicaChooser {
 public:
  /// @throws Error(kInvalidArgument) if the placement is not valid or not for this cluster
  ReplicaChooser(const Placement& placement, const Cluster& cluster, ReplicaRule rule,
                 std::uint64_t seed);

  /// Fills `served_by` [top_k] with the rank that serves each of `experts` [top_k], kNoRank for
  /// kNoExpert.
  /// @param experts distinct and below num_experts, or kNoExpert: checked by whoever read them
  /// @param token names the token for kRandom; its row in the trace
  ///
  /// Cost: O(top_k) without replicas; for kGreedyCover O(top_k^2 * replicas per expert) with them.
  void choose(std::span<const ExpertId> experts, RankId home, std::int64_t token,
              std::span<RankId> served_by);

  /// Whether choose() gives the same for every `home`.
  bool ignores_home() const { return !has_replicas_ || rule_ == ReplicaRule::kRandom; }
  /// Whether choose() gives an expert the same rank in every token of a home rank.
  bool ignores_token() const { return !has_replicas_ || rule_ == ReplicaRule::kLocalFirst; }
  bool has_replicas() const { return has_replicas_; }

 private:
  void choose_greedy_cover(std::span<const ExpertId> experts, RankId home,
                           std::span<RankId> served_by);
  RankId best_cover(std::span<const ExpertId> experts, RankId home,
                    std::span<const RankId> served_by);
  void deal_local_first();

  Cluster cluster_;
  ReplicaRule rule_;
  std::uint64_t seed_;
  bool has_replicas_ = false;
  std::vector<std::vector<RankId>> hosts_;  // [num_experts], ascending
  Matrix<RankId> dealt_;       // [ep_size, num_experts], (home, expert); kLocalFirst only
  Matrix<std::int64_t> load_;  // [ep_size, ep_size], (home, serving rank); kGreedyCover only
  // Scratch of one call, all zero between calls.
  std::vector<std::int32_t> covered_;  // [ep_size]
  std::vector<char> is_node_used_;     // [num_nodes]
};

}  // namespace c2r
