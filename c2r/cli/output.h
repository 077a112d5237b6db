// Where results go: standard output, or a file that appears whole.
#pragma once

#include <string>
#include <string_view>

namespace c2r::cli {

/// Writes `text` to the file, or to standard output if `path` is empty.
void write_result(const std::string& path, std::string_view text);

/// Whether colours make sense: standard output is a terminal and NO_COLOR is not set.
bool wants_color();

}  // namespace c2r::cli
