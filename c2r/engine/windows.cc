// Cuts each sequence from its first token on; the last window of a sequence may be shorter.
#include "c2r/engine/windows.h"

#include <algorithm>
#include <utility>

#include "c2r/core/error.h"

namespace c2r {

Windows::Windows(NextSequence next, std::int64_t window, std::int64_t max_tokens)
    : next_(std::move(next)), window_(window), num_left_(max_tokens) {
  C2R_REQUIRE(window >= 1, kInvalidArgument, "the window is {} tokens, but must be at least 1",
              window);
  C2R_REQUIRE(max_tokens >= 0, kInvalidArgument, "max_tokens is {}, but must be at least 0",
              max_tokens);
}

std::optional<Window> Windows::next() {
  if (num_left_ == 0) return std::nullopt;
  if (rest_.empty()) {
    auto sequence = next_();
    if (!sequence) return std::nullopt;
    sequence_ = std::move(*sequence);
    rest_ = sequence_;
    window_idx_ = 0;
  }
  const std::int64_t count = std::min({window_, std::ssize(rest_), num_left_});
  const auto tokens = rest_.first(static_cast<std::size_t>(count));
  rest_ = rest_.subspan(tokens.size());
  num_left_ -= count;
  return Window{.tokens = {tokens.begin(), tokens.end()}, .window_idx = window_idx_++};
}

}  // namespace c2r
