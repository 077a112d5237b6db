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
  /// For a pass of so many tokens. 1 until two passes were added: the first finds no weights in
  /// memory, the second is measured.
  std::int32_t choose(std::int64_t num_tokens) const;

 private:
  double rows_per_token_;
  std::int32_t num_passes_ = 0;
  OneChunkTimes per_token_;
};

}  // namespace c2r
