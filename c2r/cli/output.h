// Output of commands: to standard output, or to a file that is written completely or not at all.
#pragma once

#include <CLI/App.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/report/heat_map.h"

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

/// @returns colours if standard output is a terminal that has them (TERM is not "dumb") and
///          NO_COLOR is not set (https://no-color.org); otherwise blocks, or ASCII in a locale
///          whose character set is not UTF-8, such as LC_ALL=C
HeatMapStyle heat_map_style();

}  // namespace c2r::cli
