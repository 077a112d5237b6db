// Makes messages safe for a terminal, whatever names and values of files they quote.
#pragma once

#include <string>
#include <string_view>

namespace c2r::cli {

/// @returns `text` as one line: control characters (C0, DEL, C1) are escaped as in C, bytes that
///          are not UTF-8 are replaced by U+FFFD, and what is longer than 4000 bytes is cut and
///          ends in "..."
std::string printable(std::string_view text);

}  // namespace c2r::cli
