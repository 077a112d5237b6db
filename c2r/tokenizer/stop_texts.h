// Ends a text at a stop text.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace c2r {

/// Finds in a text that comes in pieces the stop text that ends first. The results of all calls of
/// push() and of finish(), joined, are the text before the stop text, or all of it if there is
/// none.
class StopTexts {
 public:
  /// @param stops without any, nothing is held back
  /// @throws Error(kInvalidArgument) if one is empty
  explicit StopTexts(std::vector<std::string> stops);

  /// @returns what surely comes before a stop text; a piece that may begin one is held back. After
  ///          a stop text: nothing
  /// Cost: O(text held back and new x the longest stop text) for each stop text.
  std::string push(std::string_view piece);
  /// @returns what was held back; to be called once
  std::string finish();
  /// @returns whether a stop text has come
  bool has_stopped() const { return has_stopped_; }

 private:
  std::size_t held_back() const;

  std::vector<std::string> stops_;
  std::string held_;
  bool has_stopped_ = false;
};

}  // namespace c2r
