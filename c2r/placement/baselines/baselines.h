// Published and obvious ways to place experts, each from one layer's statistics alone. A better
// placement has to beat them, and some of them are special cases of it.
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
  std::int32_t slots_per_rank = 0;  // slots beyond num_experts / ep_size are redundant
  std::int32_t num_groups = 1;      // of group-limited routing (DeepSeek); only eplb uses it
  std::uint64_t seed = 0;           // only random uses it

  std::int32_t num_experts() const { return static_cast<std::int32_t>(counts.rows()); }
  std::int32_t num_slots() const { return slots_per_rank * cluster.ep_size(); }
};

/// grace: by how much of the mean the sizes of two groups may differ. The constant is ours.
inline constexpr double kGraceNonUniformity = 0.25;

/// exhaustive: how many partitions it tries at most.
inline constexpr double kMaxPartitions = 1e7;

/// The baselines, whose redundant slots hold replicas:
///   contiguous   Slot p holds expert p mod num_experts, as engines place without a plan.
///   round-robin  Experts go to ranks in turn; a redundant slot takes the next expert in turn that
///                its rank lacks.
///   random       The same with shuffled experts; a redundant slot takes any expert that its rank
///                lacks, all equally likely.
///   eplb         DeepSeek's EPLB (eplb.h) on the loads alone. EPLB may put two replicas of an
///                expert on one rank, of which the second is repaired (repair.h).
///   balance      EPLB's and a greedy placement, improved by swaps and by other replicas, while the
///                busiest rank gets less (balance.h). It looks at loads alone, not at nodes or
///                groups. Two slots of a rank may hold an expert, where others are less even.
///   affinity     Balanced spectral grouping of the pair counts (spectral.h), one group for each
///                rank, as Occult (ICML 2025) and C2R (NAACL 2025) co-locate collaborators. It
///                makes no replicas and does not look at nodes; groups are numbered by their lowest
///                expert.
///   grace        After GRACE-MoE (arXiv 2509.25041), whose code is not public, in its three steps:
///                  1. Experts are grouped by spectral clustering, first over nodes, then in each
///                     node over its ranks; the sizes of groups may differ by kGraceNonUniformity.
///                  2. Hot experts of the most loaded ranks are replicated on the least loaded.
///                  3. At run time the nearest replica serves: predict with
///                     ReplicaRule::kLocalFirst.
///                It is adapted to engines, which want as many slots on every rank: a group has at
///                most slots_per_rank experts, so that groups are unequal only where slots are
///                redundant; and replication, which the paper sizes by the skew of the load,
///                continues until every slot is filled.
///   exhaustive   The partition into equal ranks with the fewest (token, pair) collaborations
///                between ranks: for top-2 that is the fewest copies of mode per-rank, for more it
///                is what affinity approximates. It tries all partitions, at most kMaxPartitions;
///                it makes no replicas and does not look at nodes. Cost: num_experts steps for each
///                of the num_experts! / ((num_experts / ep_size)!^ep_size ep_size!) partitions.
/// @returns their names, in this order
std::span<const std::string_view> baseline_names();

/// Places with the baseline called `name`.
/// @returns a valid placement, the same for the same problem; of balance, an expert may be twice on
/// a rank
/// @throws Error(kInvalidArgument) if there is no such baseline (the error lists them), or if the
///         problem is not valid: the slots cannot hold every expert once, or a rank has more slots
///         than there are experts
/// @throws Error(kUnsupported) with the reason if the baseline cannot place the problem
Placement place_baseline(std::string_view name, const BaselineProblem& problem);

/// Places every layer by itself.
/// @param counts [num_layers], of which `problem.counts` is set in turn
/// @param notes gets a sentence if EPLB's own result was repaired or an expert is twice on a rank,
///              with the number of slots and layers; may be null
/// @returns [num_layers]
/// @throws as place_baseline()
std::vector<Placement> place_layers(std::string_view name,
                                    std::span<const CollaborationMatrix> counts,
                                    BaselineProblem problem, Progress& progress,
                                    std::vector<std::string>* notes = nullptr);

}  // namespace c2r
