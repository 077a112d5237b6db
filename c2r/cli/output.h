// Where results go: standard output, or a file that appears whole.
#pragma once

#include <CLI/App.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace c2r::cli {

/// Adds -o, which takes the name of a file; "-" is refused, since some results cannot be printed.
CLI::Option* add_output(CLI::App& command, std::string& path, const std::string& help);

/// Checks before the work that a file, or in a folder any file, of `inputs` is not overwritten, and
/// that `path` can be written. Nothing is checked if it is empty.
/// @throws Error(kInvalidArgument), Error(kInvalidFile)
void check_output(const std::string& path, const std::vector<std::string>& inputs);

/// Writes `text` to the file, or to standard output if `path` is empty.
void write_result(const std::string& path, std::string_view text);

/// Whether colours make sense: standard output is a terminal and NO_COLOR is not set.
bool wants_color();

}  // namespace c2r::cli
