// The `c2r` program: its commands, how their errors are said, and which exit status they give.
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
/// Of a program that ends with this error.
inline int exit_status(const Error& error) {
  return error.code() == ErrorCode::kInvalidArgument ? kUsage : kFailed;
}

/// What is to be said of an exception that is no Error, in one line.
std::string message_of(const std::exception& error);

/// The check of an option that takes an integer in [min, max].
CLI::Validator in_range(std::int64_t min, std::int64_t max);

/// Adds an option that takes values with commas between them, none of them empty: parts_of(lists).
CLI::Option* add_list(CLI::App& command, const std::string& name, std::vector<std::string>& lists,
                      const std::string& help);
std::vector<std::string> parts_of(const std::vector<std::string>& lists);

/// The check of an option that takes a number in [min, max]; "nan" is none.
CLI::Validator number_in(double min, double max);

/// Adds --threads to a command; `num_threads` becomes the processors where it is 0 or not given.
void add_threads(CLI::App& command, int& num_threads);

/// "; did you mean 'WORD'?" of the word that differs least, or nothing if more than a third of its
/// letters differ.
std::string suggestion(const std::string& word, const std::vector<std::string>& words);

}  // namespace c2r::cli
