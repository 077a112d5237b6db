// Reach: how many tokens each rank and node serves under a placement, by home rank.
//
// A token's experts, the replica rule and its home rank decide which ranks serve it. The volume of
// any copy mode (volume.h), every load and the fan-out depend on these counts alone.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "c2r/collaboration/collaboration.h"
#include "c2r/core/matrix.h"
#include "c2r/core/progress.h"
#include "c2r/placement/cluster.h"
#include "c2r/placement/cost/replica_rule.h"
#include "c2r/placement/cost/traffic_model.h"
#include "c2r/placement/placement.h"
#include "c2r/trace/sequence_split.h"
#include "c2r/trace/trace.h"

namespace c2r {

/// Assigns home ranks under Homes::kSequences. The sequences that begin in `ranges` go to the ranks
/// in turn, from rank 0 on, and the others separately so. If all went in turn together, the even
/// sequences of a trace would live on the even ranks only.
/// @param sequence_starts ascending, up to num_tokens; tokens before the first start, or without
///        any, live on rank 0
/// @param ranges ascending and disjoint
/// @returns the home rank of each token. [num_tokens]
/// @throws Error(kInvalidArgument) if there is no rank, or, naming the sequence, if the starts do
///         not ascend
std::vector<RankId> homes_of_sequences(std::span<const std::int64_t> sequence_starts,
                                       std::int64_t num_tokens, std::int32_t ep_size,
                                       std::span<const TokenRange> ranges);

/// Counts under one traffic model; its copy mode plays no part in them. All counts are to be
/// divided by `denominator`: 1 for Homes::kSequences. For kUniform every token is counted once from
/// each of the ep_size homes, so that the expectation is exact.
struct Reach {
  bool is_exact = true;  // false: tokens_on_* are lower bounds, see reach_from_pairs()
  std::int64_t denominator = 1;
  std::vector<std::int64_t> num_tokens;    // [ep_size], tokens of each home rank
  Matrix<std::int64_t> choices_on_rank;    // [ep_size, ep_size], (home, rank): choices served
  Matrix<std::int64_t> tokens_on_rank;     // [ep_size, ep_size], (home, rank): tokens served
  Matrix<std::int64_t> tokens_on_node;     // [ep_size, num_nodes], (home, node): tokens served
  Matrix<std::int64_t> choices_of_expert;  // [num_experts, ep_size], (expert, rank), of all homes

  bool operator==(const Reach&) const = default;
};

/// Counts the tokens of one layer, batch after batch.
class ReachCounter {
 public:
  /// @param progress is asked whether to stop: then add() and serve_before() throw
  ///        Error(kTimeout), and the counter cannot be used any more; null: never
  /// @throws Error(kInvalidArgument) if the placement is not valid or not for the cluster,
  ///         Error(kUnsupported) for Homes::kSignature
  ReachCounter(const Placement& placement, const TrafficModel& traffic,
               const Progress* progress = nullptr);

  /// Adds the next tokens.
  /// @param topk_idx [num_tokens, up to kMaxTopK]; kNoExpert is skipped
  /// @param homes [num_tokens] for Homes::kSequences, else empty
  /// @throws Error(kInvalidArgument) if a choice is not valid (check_topk_idx()), or if `homes` has
  ///         another length or names a rank that is not in the cluster; then nothing is counted
  ///
  /// Cost: one ReplicaChooser::choose() a token; for Homes::kUniform ep_size of them, or as many as
  /// there are homes that are not alike (ReplicaChooser::num_alike_homes()).
  void add(MatrixView<const ExpertId> topk_idx, std::span<const RankId> homes);

  /// Serves tokens that came before those to count, but does not count them. Parameters and errors
  /// are those of add().
  void serve_before(MatrixView<const ExpertId> topk_idx, std::span<const RankId> homes);
  /// @returns whether serve_before() makes a difference
  bool has_memory() const { return chooser_.has_memory(); }

  /// @returns the counts of all tokens added so far
  Reach finish() const;

 private:
  void serve(MatrixView<const ExpertId> topk_idx, std::span<const RankId> homes, bool is_counted);
  void serve_uniformly(std::span<const ExpertId> experts, bool is_counted);
  void count_token(std::span<const ExpertId> experts, RankId home_rank, Reach& reach);

  TrafficModel traffic_;
  const Progress* progress_;
  ReplicaChooser chooser_;
  Reach reach_;
  Reach alike_;  // one home, which stands for all: of tokens that all homes serve alike
  std::int32_t num_alike_homes_ = 1;  // of which the first is counted for all
  std::int64_t next_token_ = 0;
  std::vector<std::int32_t> node_of_rank_;  // [ep_size]
  std::vector<RankId> served_by_;           // [top_k], scratch
  // The count_token() that last met a rank or a node. [ep_size], [num_nodes]
  std::vector<std::int64_t> last_on_rank_, last_on_node_;
  std::int64_t num_counted_ = 0;
};

/// Counts the tokens of a trace in `ranges`.
///
/// For a rule that looks at earlier tokens, the trace's other tokens are served first, without
/// being counted. So the loads that break ties start from traffic of the same kind, as in a server
/// that has run for a while.
///
/// @param ranges ascending and disjoint
/// @param placements one for each layer of the trace
/// @returns [num_layers]
/// @throws Error(kInvalidArgument) if the placements are not for the trace's experts and layers
/// @throws Error(kInvalidFile) if the trace holds an invalid choice
/// @throws Error(kTimeout) if the progress is stopped
std::vector<Reach> count_reach(const Trace& trace, std::span<const TokenRange> ranges,
                               std::span<const Placement> placements, const TrafficModel& traffic,
                               int num_threads, Progress& progress);

/// Counts as above tokens whose homes are known, whatever `traffic.homes` says.
/// @param ranges disjoint, in the order in which they are served
/// @param home_of_token [num_tokens of the trace]
/// @throws also Error(kInvalidArgument) if there is not one home for each token of the trace
std::vector<Reach> count_reach(const Trace& trace, std::span<const TokenRange> ranges,
                               std::span<const RankId> home_of_token,
                               std::span<const Placement> placements, const TrafficModel& traffic,
                               int num_threads, Progress& progress);

/// Counts one layer from pair counts alone. The result is exact for top_k <= 2, where pair counts
/// determine it. For more, `choices_on_rank` is exact and tokens_on_* are the Dawson-Sankoff lower
/// bound of a union from its single and pair sums (rounded; no less than the largest load): their
/// values if each token that reaches a rank chose about the same number of experts there.
///
/// @param num_tokens behind the counts
/// @throws Error(kInvalidArgument) if homes are not uniform, or if the placement has replicas and
///         the rule is not kLocalFirst: pair counts do not say what other rules need
///
/// Cost: O(num_experts^2), times ep_size with replicas.
Reach reach_from_pairs(const CollaborationMatrix& counts, std::int64_t num_tokens,
                       std::int32_t top_k, const Placement& placement, const TrafficModel& traffic);

/// @param reach of this placement
/// @returns `placement` with one slot for each expert: the one that served most of its choices, of
///          equals the one on the lowest rank; the other slots are empty
/// @throws Error(kInvalidArgument) if it is of another number of experts or ranks
Placement keep_main_slots(const Placement& placement, const Reach& reach);

/// @returns the choices served by each rank, to be divided by `denominator`. [ep_size]
std::vector<std::int64_t> rank_choices(const Reach& reach);

}  // namespace c2r
