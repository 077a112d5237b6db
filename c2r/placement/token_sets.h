// The distinct sets of experts that tokens choose, with their multiplicities. A placement's copies
// and loads depend on nothing else, and where few sets are possible they are far fewer than tokens.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "c2r/core/ids.h"
#include "c2r/core/matrix.h"
#include "c2r/trace/sequence_split.h"
#include "c2r/trace/trace.h"

namespace c2r {

/// The choices of one MoE layer. Rows are distinct and in ascending order.
struct TokenSets {
  std::int32_t num_experts = 0;
  std::int64_t num_tokens = 0;             // tokens without any choice included
  Matrix<ExpertId> experts;                // [num_sets, top_k], ascending, then kNoExpert
  std::vector<std::int64_t> multiplicity;  // [num_sets], tokens that chose exactly this set
  // The same by scenarios, kinds of traffic that loads are to be even in: the rows add up to
  // multiplicity. [num_sets, num_scenarios], or empty: all tokens are one
  Matrix<std::int64_t> multiplicity_in = {};

  std::int64_t num_sets() const { return experts.rows(); }
  std::int64_t top_k() const { return experts.cols(); }
  bool operator==(const TokenSets&) const = default;
};

/// Checks sets that a program made itself: experts in range and ascending in each row, as many
/// multiplicities as rows, each at least 1, and no more tokens in the sets than num_tokens; and
/// that scenarios add up and each have a choice. Rows that are equal or in another order are no
/// error: they only cost time.
/// @throws Error(kInvalidArgument), naming the set
///
/// Cost: one pass over the sets.
void check_token_sets(const TokenSets& sets);

/// Collects token sets batch by batch. The result does not depend on the order of the tokens.
class TokenSetBuilder {
 public:
  /// @throws Error(kInvalidArgument) unless 1 <= `top_k` <= `num_experts`, with at most kMaxTopK
  ///         choices and kMaxExperts experts (routing.h), or if there are fewer than 0 scenarios
  TokenSetBuilder(std::int32_t num_experts, std::int32_t top_k, std::int64_t num_scenarios = 0);

  /// Adds tokens.
  /// @param topk_idx [num_tokens, top_k]; kNoExpert is skipped
  /// @param scenario of the tokens, if there are scenarios
  /// @throws Error(kInvalidArgument) as check_topk_idx(); then nothing has been added
  ///
  /// Cost: one hash look-up a token; memory grows with the number of distinct sets.
  void add(MatrixView<const ExpertId> topk_idx, std::int64_t scenario = 0);

  /// @returns the sets of all tokens added so far, in ascending order
  TokenSets finish() const;

 private:
  std::int64_t find_or_insert(std::span<const std::uint16_t> key);
  void grow();

  std::int64_t num_sets() const { return std::ssize(multiplicity_) / num_counts_; }
  std::span<const std::uint16_t> key_of(std::int64_t set) const;
  std::span<const std::int64_t> counts_of(std::int64_t set) const;
  std::vector<std::int64_t> sets_in_order() const;

  std::int32_t num_experts_ = 0, top_k_ = 0;
  bool has_scenarios_ = false;
  std::int64_t num_counts_ = 1;  // of a set: one for each scenario, or one of all tokens
  std::int64_t num_tokens_ = 0;
  std::vector<std::uint16_t> keys_;         // [num_sets, top_k_], as they were met
  std::vector<std::int64_t> multiplicity_;  // [num_sets, num_counts_]
  std::vector<std::int32_t> table_;         // open addressing: a set, or -1; a power of two long
};

/// Reads the trace in pieces.
/// @param ranges the tokens that are collected
/// @returns the sets of one layer
/// @throws Error(kInvalidFile) if the trace holds an invalid choice there
TokenSets collect_token_sets(const Trace& trace, std::int64_t layer,
                             std::span<const TokenRange> ranges);

/// The same of several scenarios.
/// @param scenarios the tokens of each, which no other has. [num_scenarios]
/// @throws as above, and Error(kInvalidArgument) if a scenario has no choice in the layer
TokenSets collect_token_sets(const Trace& trace, std::int64_t layer,
                             std::span<const std::vector<TokenRange>> scenarios);

}  // namespace c2r
