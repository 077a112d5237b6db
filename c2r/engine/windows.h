// Long sequences of tokens, cut into pieces that a model can run.
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

/// Cuts sequences into windows of up to `window` tokens, until `max_tokens` of them are given out.
class Windows {
 public:
  Windows(NextSequence next, std::int64_t window, std::int64_t max_tokens = INT64_MAX)
      : next_(std::move(next)), window_(window), num_left_(max_tokens) {}
  Windows(const Windows&) = delete;
  Windows& operator=(const Windows&) = delete;

  /// The next window, of at least one token, or nothing at the end.
  std::optional<std::vector<TokenId>> next();

 private:
  NextSequence next_;
  std::int64_t window_, num_left_;
  std::vector<TokenId> sequence_;
  std::span<const TokenId> rest_;  // of the sequence
};

}  // namespace c2r
