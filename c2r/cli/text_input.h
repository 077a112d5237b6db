// Text that a command reads: from a file, or from standard input.
#pragma once

#include <string>

namespace c2r::cli {

/// The text of a file, decompressed if its name ends in .xz, or of standard input if `path` is "-".
/// @throws Error(kInvalidFile) if it cannot be read or is no UTF-8, saying where, and what to do
///         with a file that another program has compressed
std::string read_text_input(const std::string& path);

}  // namespace c2r::cli
