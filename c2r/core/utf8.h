// UTF-8 that may be broken: where its characters end, and what replaces what is none.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace c2r {

/// U+FFFD, which stands for bytes that are no character.
inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

enum class Utf8Kind {
  kCharacter,  // a whole, valid character
  kBroken,     // bytes that begin no character: replaced by one U+FFFD
  kCutOff,     // the text ends within a character that is valid so far
};

struct Utf8Unit {
  std::size_t num_bytes = 0;  // 1 to 4
  Utf8Kind kind = Utf8Kind::kBroken;
};

/// The first character of `text`, which must not be empty, or else the longest beginning of a
/// character ("maximal subpart": Unicode 16, section 3.9, and the WHATWG decoder; also what Python
/// and Rust replace by one U+FFFD). Surrogates and overlong forms are broken. O(1).
Utf8Unit first_utf8_unit(std::string_view text);

bool is_valid_utf8(std::string_view text);

/// `text` with each broken or cut off unit replaced by U+FFFD. O(text).
std::string replace_broken_utf8(std::string_view text);

}  // namespace c2r
