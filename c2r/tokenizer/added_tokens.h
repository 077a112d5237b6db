// Tokens that are found in the text before anything else is done with it: <|endoftext|> and such.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/core/ids.h"

namespace c2r {

struct AddedToken {
  TokenId id{};
  std::string content;
  bool is_single_word = false;  // only where no letter or digit touches it
  bool strips_left = false;     // takes the white space before it with it
  bool strips_right = false;    // and after it
  bool is_normalized = false;   // is looked for in the normalized text, itself normalized
  bool is_special = false;      // left out of text for people
};

/// A stretch of text: an added token, or what lies between two.
struct TextSection {
  std::size_t begin = 0, end = 0;
  const AddedToken* token = nullptr;  // nullptr: ordinary text
};

/// Finds a fixed set of tokens. Immutable, so threads may share one.
class AddedTokens {
 public:
  /// Tokens without content are left out.
  explicit AddedTokens(std::vector<AddedToken> tokens);

  /// Cuts `text`, valid UTF-8, into sections; from the left, the longest token at each place, as
  /// Hugging Face's AddedVocabulary::find_matches does. Cost: O(text) where few tokens begin.
  std::vector<TextSection> sections(std::string_view text) const;

 private:
  const AddedToken* longest_at(std::string_view text) const;

  std::vector<AddedToken> tokens_;        // sorted by content
  std::array<bool, 256> begins_token_{};  // by a token's first byte
};

}  // namespace c2r
