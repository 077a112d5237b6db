// What tokenizers ask about characters.
#pragma once

#include <string>
#include <string_view>

namespace c2r {

enum class NormalForm { kNfc, kNfkc };

/// Appends `text`, valid UTF-8, in this normal form of Unicode: the plain way, and the same with
/// only those stretches normalized that may change. Cost: O(text), some 30 and 500 MB/s.
void append_normalized_plainly(std::string_view text, NormalForm form, std::string& out);
void append_normalized(std::string_view text, NormalForm form, std::string& out);

/// `text` with each `from`, which must not be empty, replaced by `to`.
std::string replace_all(std::string_view text, std::string_view from, std::string_view to);

/// Whether `text` begins (ends) with a letter, mark, digit, connector or joiner: what the regular
/// expression \w matches (Unicode technical standard 18, annex C).
bool begins_with_word(std::string_view text);
bool ends_with_word(std::string_view text);

/// The bytes of white space that `text` begins (ends) with.
std::size_t leading_space_bytes(std::string_view text);
std::size_t trailing_space_bytes(std::string_view text);

}  // namespace c2r
