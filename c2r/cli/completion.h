// Completion of command lines in shells, made from the options as they are declared.
#pragma once

#include <CLI/App.hpp>
#include <CLI/Validators.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace c2r::cli {

/// The option of the program before the words that print_completions() is given.
inline constexpr std::string_view kCompletionOption = "--complete";

/// @returns a check that accepts everything, and tells completion which values an option has that
///          are checked elsewhere
CLI::Validator offered(const std::vector<std::string>& values);

/// @returns offered() of the names of all SequencePart
CLI::Validator offered_parts();

/// @returns the check of an option that has one of `values`, which completion offers
CLI::Validator one_of(const std::vector<std::string>& values);

/// Prints how the last of `words`, which stand after the name of the program, can continue: names
/// of commands, names of options, or values of an option, one a line. Prints nothing where a file
/// or a number belongs.
void print_completions(CLI::App& app, std::span<const char* const> words);

}  // namespace c2r::cli
