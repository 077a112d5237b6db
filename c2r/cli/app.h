// What the commands of the `c2r` program share: exit statuses, messages and checks of options.
#pragma once

#include <CLI/App.hpp>
#include <CLI/Validators.hpp>
#include <cstdint>
#include <exception>
#include <string>
#include <vector>

#include "c2r/core/error.h"

namespace c2r::cli {

inline constexpr int kFailed = 1, kUsage = 2;
/// @returns the exit status of a program that ends with this error
inline int exit_status(const Error& error) {
  return error.code() == ErrorCode::kInvalidArgument ? kUsage : kFailed;
}

/// @returns the message of an exception that is no Error, in one line
std::string message_of(const std::exception& error);

/// @returns the check of an option that takes an integer in [min, max]
CLI::Validator in_range(std::int64_t min, std::int64_t max);

/// Adds an option that takes values separated by commas. An empty value is an error.
CLI::Option* add_list(CLI::App& command, const std::string& name, std::vector<std::string>& lists,
                      const std::string& help);
/// @returns the values of all `lists`, of which each is as add_list() takes it
std::vector<std::string> parts_of(const std::vector<std::string>& lists);

/// @returns the check of an option that takes a number in [min, max]; "nan" is refused
CLI::Validator number_in(double min, double max);

/// Adds --threads to a command. If it is 0 or not given, `num_threads` becomes the number of
/// processors.
void add_threads(CLI::App& command, int& num_threads);

/// @returns "; did you mean 'WORD'?" with the word that differs least, or nothing if more than a
///          third of its letters differ
std::string suggestion(const std::string& word, const std::vector<std::string>& words);

}  // namespace c2r::cli
