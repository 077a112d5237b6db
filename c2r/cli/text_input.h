// The texts and token ids that a command runs a model on: its options, and standard input as "-".
#pragma once

#include <CLI/App.hpp>
#include <string>

#include "c2r/engine/sequence_files.h"

namespace c2r::cli {

/// The text of a file, decompressed if its name ends in .xz, or of standard input if `path` is "-".
/// @throws Error(kInvalidFile) if it cannot be read, or as check_utf8()
std::string read_text_input(const std::string& path);

/// Adds --text and --tokens.
void add_sequence_files(CLI::App& command, SequenceFiles& files);

/// @throws Error(kInvalidArgument) if there is no file, or standard input is named twice
void check_sequence_files(const SequenceFiles& files);

}  // namespace c2r::cli
