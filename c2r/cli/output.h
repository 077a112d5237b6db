// Output of commands: to standard output, or to a file that is written completely or not at all.
#pragma once

#include <CLI/App.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace c2r::cli {

/// Adds -o, which takes the name of a file; "-" is refused, since some results cannot be printed.
CLI::Option* add_output(CLI::App& command, std::string& path, const std::string& help);

/// Checks before the work begins that `path` can be written, and that this overwrites neither a
/// file of `inputs` nor a file in a folder of `inputs`. Checks nothing if `path` is empty.
/// @throws Error(kInvalidArgument) if an input would be overwritten
/// @throws Error(kInvalidFile) if `path` cannot be written
void check_output(const std::string& path, const std::vector<std::string>& inputs);

/// Writes `text` to the file, or to standard output if `path` is empty.
void write_result(const std::string& path, std::string_view text);

/// @returns whether to print colours: standard output is a terminal and NO_COLOR is not set
bool wants_color();

}  // namespace c2r::cli
