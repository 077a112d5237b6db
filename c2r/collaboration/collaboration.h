// Pair counts: how often experts are chosen together, exactly, per MoE layer, from routing traces.
//
// Two experts *collaborate* when one token chooses both (C2R, NAACL 2025; Occult, ICML 2025).
// Everything else in this module is derived from pair counts. The key of a statistics file, and the
// field of CollaborationStatistics that holds them, is `coactivation`.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "c2r/core/matrix.h"
#include "c2r/core/progress.h"
#include "c2r/trace/sequence_split.h"
#include "c2r/trace/trace.h"

namespace c2r {

/// The pair counts of one layer, [num_experts, num_experts]: entry (a, b) counts the tokens that
/// chose both a and b. The matrix is symmetric, and its diagonal is each expert's load in tokens.
using CollaborationMatrix = Matrix<std::int64_t>;

/// Adds tokens to pair counts. Batches may be added in any order: the result is exact. This is the
/// reference for count_collaboration().
/// @param topk_idx [num_tokens, top_k]; kNoExpert is skipped
/// @throws Error(kInvalidArgument) if `counts` is not square, or a choice is not valid for as many
///         experts (check_topk_idx()); `counts` is unchanged then
void add_collaboration(MatrixView<const ExpertId> topk_idx, CollaborationMatrix& counts);

/// @param counts a CollaborationMatrix
/// @returns its diagonal: the load of each expert, in tokens. [num_experts]
std::vector<std::int64_t> expert_loads(MatrixView<const std::int64_t> counts);

/// The counts of a whole model over one or more traces.
struct CollaborationStatistics {
  TraceHeader header;
  std::vector<std::int64_t> num_tokens;           // [num_layers]
  std::vector<CollaborationMatrix> coactivation;  // [num_layers] of [num_experts, num_experts]
  // False for statistics of engines that record loads only: then only the diagonals are filled.
  bool has_pairs = true;

  std::int64_t num_layers() const { return header.num_layers(); }
  bool operator==(const CollaborationStatistics&) const = default;
};

/// @returns statistics of zero tokens
/// @throws Error(kUnsupported) if memory is too small for them
CollaborationStatistics empty_statistics(const TraceHeader& header, bool has_pairs = true);

/// Counts the pairs of a whole trace.
/// @returns statistics that do not depend on `num_threads`
/// @throws Error(kInvalidFile), naming layer and token, if the trace holds an invalid choice
///
/// Cost: num_tokens * num_layers * top_k^2 / 2 increments and one pass over the file; memory
/// num_layers * num_experts^2 * 8 bytes plus num_experts^2 * 4 for each thread, whatever the
/// number of tokens.
CollaborationStatistics count_collaboration(const Trace& trace, int num_threads,
                                            Progress& progress);

/// Counts the pairs of the tokens in `ranges`.
/// @returns the pair counts of each layer. [num_layers]
/// @throws Error(kInvalidFile) as count_collaboration()
///
/// Cost: num_layers * top_k^2 increments for each token; layers are shared out among the threads.
std::vector<CollaborationMatrix> count_pairs(const Trace& trace, std::span<const TokenRange> ranges,
                                             int num_threads);

/// Adds `from` to `into`, as if their tokens had been counted together.
/// @throws Error(kInvalidArgument) if models or pairs differ, if the parts of either are not of its
///         layers and experts, or above 2^47 tokens
void merge(const CollaborationStatistics& from, CollaborationStatistics& into);

/// Reads a statistics file (docs/formats.md).
/// @throws Error(kInvalidFile), naming what is wrong: also if no choices of top_k distinct experts
///         by the tokens of a layer have such counts
CollaborationStatistics read_statistics(const std::filesystem::path& path);

/// Writes a statistics file that read_statistics() accepts.
/// @throws Error(kInvalidArgument) if the parts of the statistics are not of its layers and
///         experts, or if there are counts of pairs without has_pairs
/// @throws Error(kInvalidFile) for counts that read_statistics() would refuse, and on a full disk
void write_statistics(const CollaborationStatistics& statistics, const std::filesystem::path& path);

}  // namespace c2r
