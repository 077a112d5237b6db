// Cuts each sequence from its first token on; the last window of a sequence may be shorter.
#include "c2r/engine/requests/windows.h"

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

RollingWindows::RollingWindows(NextSequence next, TokenId first_token, std::int64_t max_inputs,
                               std::int64_t min_context)
    : next_(std::move(next)),
      first_token_(first_token),
      max_inputs_(max_inputs),
      min_context_(min_context) {
  C2R_REQUIRE(
      1 <= min_context && min_context <= max_inputs, kInvalidArgument,
      "each token is to have {} tokens before it, but that must be in [1, {}], the tokens of "
      "a window",
      min_context, max_inputs);
}

std::optional<RollingWindow> RollingWindows::next() {
  if (num_scored_ == std::ssize(sequence_)) {  // all but the first token, which is not scored
    auto sequence = next_();
    if (!sequence) return std::nullopt;
    if (sequence->empty()) return RollingWindow{};
    sequence->insert(sequence->begin(), first_token_);
    sequence_ = std::move(*sequence);
    num_scored_ = 1;
    window_idx_ = 0;
  }
  // The first window has one token of context, which is all there is.
  const std::int64_t most = num_scored_ == 1 ? max_inputs_ : max_inputs_ - min_context_ + 1;
  const std::int64_t count = std::min(std::ssize(sequence_) - num_scored_, most);
  const std::int64_t end = num_scored_ + count;
  const std::int64_t begin = std::max<std::int64_t>(0, end - max_inputs_ - 1);
  RollingWindow window{.tokens = {sequence_.begin() + begin, sequence_.begin() + end},
                       .first_scored = num_scored_ - begin,
                       .window_idx = window_idx_++};
  num_scored_ = end;
  return window;
}

}  // namespace c2r
