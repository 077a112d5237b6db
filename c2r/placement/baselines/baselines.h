// Published and obvious ways to place experts, in one interface: what a better placement has to
// beat, and special cases of it. Each is a function of one layer's statistics.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/collaboration/collaboration.h"
#include "c2r/core/matrix.h"
#include "c2r/core/progress.h"
#include "c2r/placement/cluster.h"
#include "c2r/placement/placement.h"

namespace c2r {

struct BaselineProblem {
  MatrixView<const std::int64_t> counts;  // [num_experts, num_experts], a CollaborationMatrix
  bool has_pairs = true;                  // false: only the diagonal, the loads, is filled
  Cluster cluster;
  std::int32_t slots_per_rank = 0;  // beyond num_experts / ep_size they hold replicas
  std::int32_t num_groups = 1;      // of group-limited routing (DeepSeek); only eplb asks
  std::uint64_t seed = 0;           // only random asks

  std::int32_t num_experts() const { return static_cast<std::int32_t>(counts.rows()); }
  std::int32_t num_slots() const { return slots_per_rank * cluster.ep_size(); }
};

struct Baseline {
  std::string_view name;
  /// Empty if it can place `problem`, else the reason. check_problem() must have passed.
  std::string (*why_not)(const BaselineProblem& problem);
  Placement (*place)(const BaselineProblem& problem);
};

/// contiguous, round-robin, random, eplb, affinity, grace, exhaustive.
std::span<const Baseline> baselines();

/// Places with the baseline called `name`. The result is valid, and the same for the same problem.
/// @throws Error(kInvalidArgument) if there is no such baseline (lists them) or the problem is not
///         valid, Error(kUnsupported) with the reason if the baseline cannot place it
Placement place_baseline(std::string_view name, const BaselineProblem& problem);

/// Every layer by itself. [num_layers]
/// @param counts [num_layers], of which `problem.counts` is set in turn
/// @throws as place_baseline()
std::vector<Placement> place_layers(std::string_view name,
                                    std::span<const CollaborationMatrix> counts,
                                    BaselineProblem problem, Progress& progress);

/// @throws Error(kInvalidArgument) if the slots cannot hold every expert once, or a rank more
///         experts than there are
void check_problem(const BaselineProblem& problem);

/// Slot p holds expert p mod num_experts, as engines do without a placement.
Placement place_contiguous(const BaselineProblem& problem);

/// Experts dealt to ranks in turn; spare slots go on with the next expert that the rank lacks.
Placement place_round_robin(const BaselineProblem& problem);

/// A shuffled deal; spare slots take any expert that the rank lacks, all equally likely.
Placement place_random(const BaselineProblem& problem);

/// DeepSeek's EPLB (eplb.h) on the loads alone. It may put two replicas of one expert on a rank,
/// which helps nobody: the second is exchanged for the slot with the most similar load that leaves
/// no such pair, in the same node if there is one; where none does, its place goes to the expert
/// with the highest load per replica that the rank lacks.
Placement place_eplb(const BaselineProblem& problem);

/// Balanced spectral grouping of the co-activation graph (spectral.h), one group for each rank, as
/// Occult (ICML 2025) and C2R (NAACL 2025) co-locate collaborators. Makes no replicas and knows no
/// nodes; groups are numbered by their lowest expert.
Placement place_affinity(const BaselineProblem& problem);

/// After GRACE-MoE (arXiv 2509.25041), whose code is not public, in its three steps:
///   1. experts are grouped by spectral clustering, first over nodes, then in each node over its
///      ranks; groups may differ in size by kGraceNonUniformity of the mean;
///   2. hot experts of the most loaded ranks are replicated on the least loaded ones;
///   3. at run time the nearest replica serves: predict with ReplicaRule::kLocalFirst.
/// Adapted to engines, which want as many slots on every rank: a group is at most slots_per_rank
/// large, so that groups are unequal only where spare slots are; and replication, which the paper
/// sizes by the skew of the load, goes on until every slot is filled. The constant is ours.
Placement place_grace(const BaselineProblem& problem);
inline constexpr double kGraceNonUniformity = 0.25;

/// The partition into equal ranks with the fewest (token, pair) collaborations between ranks: for
/// top-2 that is the fewest copies of mode per-rank, for more it is what affinity approximates.
/// Tries all partitions, so num_experts is small; makes no replicas and knows no nodes.
///
/// Cost: O(num_experts! / ((num_experts / ep_size)!^ep_size ep_size!) * num_experts), at most
/// kMaxPartitions partitions.
Placement place_exhaustive(const BaselineProblem& problem);
inline constexpr double kMaxPartitions = 1e7;

}  // namespace c2r
