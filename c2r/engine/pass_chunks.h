// The chunks of the passes of a model, from what passes before took.
#pragma once

#include <cstdint>
#include <optional>

#include "c2r/dispatch/chunks.h"

namespace c2r {

/// Whoever makes the same calls gets the same answers; so all ranks agree.
class PassChunks {
 public:
  /// @param rows_per_token the rows of an expert, on average, for one token of every rank
  explicit PassChunks(double rows_per_token) : rows_per_token_(rows_per_token) {}

  /// Of a pass in as many chunks as choose() said.
  /// @param num_tokens of the rank with most
  /// @param waited_s,computed_s a layer's, as OneChunkTimes has them
  void add(std::int64_t num_tokens, double waited_s, double computed_s);
  /// For a pass of so many tokens. 1 until two passes were added, of which the first finds no
  /// weights in memory, and for a pass of more than twice the tokens of any measured one: that is
  /// measured, because a short pass tells latencies only.
  std::int32_t choose(std::int64_t num_tokens) const;

 private:
  double rows_per_token_;
  std::int32_t num_passes_ = 0;
  std::int64_t most_measured_ = 0;  // tokens of a pass
  OneChunkTimes per_token_;
};

}  // namespace c2r
