// The options for texts and token ids that a model is run on; "-" is standard input.
#pragma once

#include <CLI/App.hpp>
#include <string>

#include "c2r/engine/requests/sequence_files.h"

namespace c2r::cli {

/// @returns the text of a file, as read_text_file(), or of standard input if `path` is "-"
/// @throws Error(kInvalidFile) if it cannot be read, or as check_utf8()
std::string read_text_input(const std::string& path);

/// Adds --text and --tokens.
void add_sequence_files(CLI::App& command, SequenceFiles& files);

/// @throws Error(kInvalidArgument) if there is no file, or if standard input is named twice
void check_sequence_files(const SequenceFiles& files);

}  // namespace c2r::cli
