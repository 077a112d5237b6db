// Searches stop texts in the end of a text that may still grow into one.
#include "c2r/tokenizer/stop_texts.h"

#include <algorithm>
#include <utility>

#include "c2r/core/error.h"

namespace c2r {

StopTexts::StopTexts(std::vector<std::string> stops) : stops_(std::move(stops)) {
  for (const std::string& stop : stops_) {
    C2R_REQUIRE(!stop.empty(), kInvalidArgument, "a stop text is empty");
  }
}

std::string StopTexts::push(std::string_view piece) {
  if (has_stopped_) return {};
  held_ += piece;
  std::size_t begin = 0, end = std::string::npos;  // of the one that ends first
  for (const std::string& stop : stops_) {
    const std::size_t at = held_.find(stop);
    if (at == std::string::npos) continue;
    if (std::pair(at + stop.size(), at) < std::pair(end, begin)) {
      begin = at;
      end = at + stop.size();
    }
  }
  if (end != std::string::npos) {
    has_stopped_ = true;
    held_.resize(begin);
    return std::exchange(held_, {});
  }
  const std::size_t length = held_.size() - held_back();
  std::string sure = held_.substr(0, length);
  held_.erase(0, length);
  return sure;
}

std::string StopTexts::finish() {
  return std::exchange(held_, {});
}

// The length of the longest end of held_ with which a stop text begins.
std::size_t StopTexts::held_back() const {
  std::size_t longest = 0;
  const std::string_view held = held_;
  for (const std::string& stop : stops_) {
    for (std::size_t length = std::min(held.size(), stop.size() - 1); length > longest; --length) {
      if (held.ends_with(std::string_view(stop).substr(0, length))) longest = length;
    }
  }
  return longest;
}

}  // namespace c2r
