// Applies replica rules (traffic_model.h): which rank serves each chosen expert of a token where
// experts have several replicas.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "c2r/core/ids.h"
#include "c2r/placement/cost/cover.h"
#include "c2r/placement/cost/traffic_model.h"
#include "c2r/placement/placement.h"

namespace c2r {

/// "Served by no rank": what a masked choice gets.
inline constexpr RankId kNoRank{-1};

/// Applies a rule to one token after another. Which rank serves what depends on the placement, the
/// cluster, the rule, the seed and, where it looks at loads, the earlier tokens of the same home
/// rank in their order; on nothing else.
class ReplicaChooser {
 public:
  /// @param traffic whose copy mode and homes play no part
  /// @throws Error(kInvalidArgument) if the placement is not valid or not for the cluster
  ReplicaChooser(const Placement& placement, const TrafficModel& traffic);

  /// Fills `served_by` [top_k] with the rank that serves each of `experts` [top_k], kNoRank for
  /// kNoExpert.
  /// @param experts distinct, or kNoExpert; whoever read them has checked that (check_topk_idx())
  /// @param token names the token for kRandom; its row in the trace
  /// @throws Error(kInvalidArgument) if an expert or the home is out of range, if `served_by` has
  ///         another length, or for kFewestRanks if there are more than kMaxTopK experts
  ///
  /// Cost: O(top_k) without replicas or for the other rules; for kFewestRanks as
  /// CoverSolver::solve(), some 0.1 us for top-4 on 8 ranks.
  void choose(std::span<const ExpertId> experts, RankId home, std::int64_t token,
              std::span<RankId> served_by);

  /// Calls choose() from the homes 0, home_step, 2 * home_step and so on at once, if it is quickly
  /// known that all of them choose the same, whatever came before. Else does nothing.
  /// @returns whether it has chosen
  /// @throws Error(kInvalidArgument) as choose(), or if home_step is below 1
  ///
  /// Cost: as one choose(), and O(top_k) for each home.
  bool choose_alike(std::span<const ExpertId> experts, std::int32_t home_step,
                    std::span<RankId> served_by);

  /// @returns n such that each run of n home ranks, from rank 0 on, is served alike after the same
  ///          tokens
  std::int32_t num_alike_homes() const;
  /// @returns whether choose() gives an expert the same rank in every token of a home rank
  bool ignores_token() const { return !has_replicas_ || rule_ == ReplicaRule::kLocalFirst; }
  /// @returns whether choose() depends on the tokens before
  bool has_memory() const { return has_replicas_ && rule_ == ReplicaRule::kFewestRanks; }
  bool has_replicas() const { return has_replicas_; }

 private:
  void check_token(std::span<const ExpertId> experts, std::span<const RankId> served_by) const;
  void find_covers(std::span<const ExpertId> experts);
  void choose_cover(std::span<const ExpertId> experts, RankId home, std::span<RankId> served_by);
  void assign_local_first();

  Cluster cluster_;
  ReplicaRule rule_;
  std::uint64_t seed_;
  bool has_replicas_ = false;
  std::vector<std::vector<RankId>> hosts_;  // [num_experts], ascending
  std::vector<RankId> only_host_;           // [num_experts], kNoRank of those with several
  Matrix<RankId> assigned_;  // [ep_size, num_experts], (home, expert); kLocalFirst only

  // kFewestRanks only.
  Matrix<std::int64_t> load_;  // [ep_size, ep_size], (home, serving rank)
  std::optional<CoverSolver> solver_;
  std::vector<ExpertId> last_experts_;                        // of the token chosen for last
  std::vector<std::uint16_t> chosen_experts_, chosen_ranks_;  // those there are, who serves them
};

}  // namespace c2r
