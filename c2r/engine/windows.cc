#include "c2r/engine/windows.h"

#include <algorithm>

namespace c2r {

std::optional<std::vector<TokenId>> Windows::next() {
  while (rest_.empty() && num_left_ > 0) {
    auto sequence = next_();
    if (!sequence) return std::nullopt;
    sequence_ = std::move(*sequence);
    rest_ = sequence_;
  }
  const std::int64_t count = std::min({window_, std::ssize(rest_), num_left_});
  if (count <= 0) return std::nullopt;
  const auto tokens = rest_.first(static_cast<std::size_t>(count));
  rest_ = rest_.subspan(tokens.size());
  num_left_ -= count;
  return std::vector(tokens.begin(), tokens.end());
}

}  // namespace c2r
