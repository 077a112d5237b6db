// Chooses the number of chunks of a forward pass from the times of earlier passes.
#pragma once

#include <cstdint>
#include <optional>

#include "c2r/dispatch/chunks.h"

namespace c2r {

/// Chooses a number of chunks for each pass. Results depend on the calls alone, so ranks that make
/// the same calls agree.
class PassChunks {
 public:
  /// @param rows_per_token the rows of an expert, on average, for one token of every rank
  explicit PassChunks(double rows_per_token) : rows_per_token_(rows_per_token) {}

  /// Adds the times of a pass that ran in as many chunks as choose() had returned.
  /// @param num_tokens the tokens of the rank that had most
  /// @param waited_s,computed_s the times of one layer, as in OneChunkTimes
  void add(std::int64_t num_tokens, double waited_s, double computed_s);
  /// Chooses 1 until two passes were added, because the first pass finds no weights in memory, and
  /// for a pass of more than twice the tokens of any measured one, because the times of a short
  /// pass are latencies; so the longer pass is measured in one chunk.
  /// @returns the number of chunks for a pass of `num_tokens` tokens
  std::int32_t choose(std::int64_t num_tokens) const;

 private:
  double rows_per_token_;
  std::int32_t num_passes_ = 0;
  std::int64_t most_measured_ = 0;  // tokens of a pass
  OneChunkTimes per_token_;
};

}  // namespace c2r
