// How text that came from a file is put into a message.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace c2r {

/// `text` made fit for one line of a terminal: control characters and bytes that are not ASCII are
/// escaped as in C, and what is longer than `max_chars` ends in "...".
std::string shown(std::string_view text, std::size_t max_chars = 60);

}  // namespace c2r
