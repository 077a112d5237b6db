// Unicode for tokenizers: normal forms, and which characters are letters or white space.
#pragma once

#include <string>
#include <string_view>

namespace c2r {

enum class NormalForm { kNfc, kNfkc };

/// Both append `text`, valid UTF-8, in a normal form of Unicode. append_normalized_plainly() is the
/// reference; append_normalized() normalizes only the ranges of the text that may change.
/// @throws Error(kInvalidArgument) if invalid UTF-8 is met
/// Cost: O(text.size()), some 30 and 500 MB/s.
void append_normalized_plainly(std::string_view text, NormalForm form, std::string& out);
void append_normalized(std::string_view text, NormalForm form, std::string& out);

/// @returns `text` with each `from` replaced by `to`
/// @throws Error(kInvalidArgument) if `from` is empty
std::string replace_all(std::string_view text, std::string_view from, std::string_view to);

/// @returns whether `text` begins (ends) with a letter, mark, digit, connector or joiner, which the
///          regular expression \w matches (Unicode technical standard 18, annex C)
/// @throws Error(kInvalidArgument) if the text does not begin (end) with valid UTF-8
bool begins_with_word(std::string_view text);
bool ends_with_word(std::string_view text);

/// @returns the number of bytes of white space at the begin (end) of `text`
/// @throws as begins_with_word()
std::size_t leading_space_bytes(std::string_view text);
std::size_t trailing_space_bytes(std::string_view text);

}  // namespace c2r
