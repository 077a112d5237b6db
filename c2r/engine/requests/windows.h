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

/// A part of a sequence, of which the tokens from `first_scored` on are scored.
struct RollingWindow {
  std::vector<TokenId> tokens;    // none only if the sequence is empty
  std::int64_t first_scored = 1;  // at least 1
  std::int64_t window_idx = 0;    // among the windows of the sequence
};

/// Cuts sequences into windows that overlap, so that each token of a sequence is scored once: the
/// first ones after a token that is put before the sequence, and every later one with at least
/// `min_context` tokens before it. These are the windows of lm-evaluation-harness's
/// get_rolling_token_windows(), also its last one, which reaches back as far as `max_inputs`
/// allows.
class RollingWindows {
 public:
  /// @param next is called only when all windows of the sequence before are given out
  /// @param first_token stands before each sequence
  /// @param max_inputs a window has at most so many tokens, and one more that is only predicted
  /// @throws Error(kInvalidArgument) if `min_context` is not in [1, max_inputs]
  RollingWindows(NextSequence next, TokenId first_token, std::int64_t max_inputs,
                 std::int64_t min_context);
  RollingWindows(const RollingWindows&) = delete;
  RollingWindows& operator=(const RollingWindows&) = delete;

  /// @returns the next window, or nothing at the end. An empty sequence gives one empty window.
  /// @throws what `next` throws
  std::optional<RollingWindow> next();

 private:
  NextSequence next_;
  TokenId first_token_;
  std::int64_t max_inputs_, min_context_;
  std::vector<TokenId> sequence_;  // begins with `first_token_`
  std::int64_t num_scored_ = 0;    // tokens of `sequence_` that windows have scored, and the first
  std::int64_t window_idx_ = 0;    // of the next window of the sequence
};

}  // namespace c2r
