// Escapes and shortens text from files and users for error messages.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace c2r {

/// @returns `text` for one line of a terminal: control characters and bytes that are not ASCII are
///          escaped as in C, and text longer than `max_chars` is cut and ends in "..."
std::string shown(std::string_view text, std::size_t max_chars = 60);

}  // namespace c2r
