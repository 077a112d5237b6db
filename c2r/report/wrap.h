// Breaks text into lines that fit a terminal.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace c2r {

/// Characters of a line of a terminal, unless its user widens it.
inline constexpr std::size_t kLineWidth = 80;

/// @param text words and line ends, which are kept; blanks at the beginning of a line are kept, too
/// @param indent the column in which `text` begins, and all lines but the first one are indented
/// @returns the text with each line broken between words where it would pass column kLineWidth. A
///          word that is longer than a line stays whole. Widths count code points.
std::string wrap_text(std::string_view text, std::size_t indent = 0);

/// @returns the number of code points of UTF-8 text
std::size_t width_of(std::string_view text);

}  // namespace c2r
