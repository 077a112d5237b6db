// Decoding of UTF-8 that may be invalid: where characters end, and U+FFFD for invalid bytes.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace c2r {

/// U+FFFD in UTF-8. It replaces bytes that are no character.
inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

enum class Utf8Kind {
  kCharacter,  // a whole, valid character
  kBroken,     // bytes that no character begins with; one U+FFFD replaces them
  kCutOff,     // the text ends within a character whose bytes are valid so far
};

struct Utf8Unit {
  std::size_t num_bytes = 0;  // 1 to 4
  Utf8Kind kind = Utf8Kind::kBroken;
};

/// @returns the first character of `text`; if there is none, the longest sequence of bytes that
///          begins a character ("maximal subpart": Unicode 16, section 3.9, and the WHATWG decoder;
///          Python and Rust replace it by one U+FFFD, too). Surrogates and overlong forms are
///          broken.
/// @throws Error(kInvalidArgument) if `text` is empty
/// Cost: O(1).
Utf8Unit first_utf8_unit(std::string_view text);

bool is_valid_utf8(std::string_view text);

/// @returns `text` with each broken or cut off unit replaced by U+FFFD
/// Cost: O(text.size()).
std::string replace_broken_utf8(std::string_view text);

}  // namespace c2r
