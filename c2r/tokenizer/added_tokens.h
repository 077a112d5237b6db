// Added tokens, such as <|endoftext|>, which are searched in the text before all other steps.
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
  bool is_single_word = false;  // found only if no letter or digit stands directly beside it
  bool strips_left = false;     // the white space before it belongs to it
  bool strips_right = false;    // the white space after it belongs to it
  bool is_normalized = false;   // its normalized content is searched in the normalized text
  bool is_special = false;      // SpecialTokens::kSkip leaves it out of decoded text
};

/// A range of bytes of a text: an added token, or the text between two added tokens.
struct TextSection {
  std::size_t begin = 0, end = 0;
  const AddedToken* token = nullptr;  // nullptr: ordinary text
};

/// Finds the tokens of a fixed set in texts. Immutable, so threads may share one.
class AddedTokens {
 public:
  /// Tokens without content are left out.
  explicit AddedTokens(std::vector<AddedToken> tokens);

  /// Cuts `text`, valid UTF-8, into sections. Tokens are searched from the left, the longest at
  /// each position, as by Hugging Face's AddedVocabulary::find_matches.
  /// @throws Error(kInvalidArgument) if the text beside a token is not valid UTF-8
  /// Cost: O(text.size()) if few positions begin a token.
  std::vector<TextSection> sections(std::string_view text) const;

 private:
  const AddedToken* longest_at(std::string_view text) const;

  std::vector<AddedToken> tokens_;        // sorted by content
  std::array<bool, 256> begins_token_{};  // by a token's first byte
};

}  // namespace c2r
