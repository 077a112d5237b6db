// Long sequences of tokens, cut into windows that a model can run.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "c2r/core/ids.h"

namespace c2r {

/// The next sequence of tokens, or nothing at the end. Sequences are asked for one by one, so that
/// a corpus need not fit in memory.
using NextSequence = std::function<std::optional<std::vector<TokenId>>()>;

/// A part of a sequence.
struct Window {
  std::vector<TokenId> tokens;  // none only if the sequence is empty
  std::int64_t window_idx = 0;  // among the windows of the sequence
};

/// Cuts sequences into windows of up to `window` tokens, until `max_tokens` of them are given out.
class Windows {
 public:
  /// @param next is called only when all windows of the sequence before are given out
  /// @throws Error(kInvalidArgument) if `window` is less than 1 or `max_tokens` is negative
  explicit Windows(NextSequence next, std::int64_t window, std::int64_t max_tokens = INT64_MAX);
  Windows(const Windows&) = delete;
  Windows& operator=(const Windows&) = delete;

  /// @returns the next window, or nothing at the end. An empty sequence gives one empty window.
  /// @throws what `next` throws
  std::optional<Window> next();

 private:
  NextSequence next_;
  std::int64_t window_, num_left_;
  std::vector<TokenId> sequence_;
  std::span<const TokenId> rest_;  // of the sequence
  std::int64_t window_idx_ = 0;    // of the next window of the sequence
};

}  // namespace c2r
