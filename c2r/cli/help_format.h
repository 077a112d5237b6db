// Lays out the help of commands in lines that fit a terminal.
#pragma once

#include <CLI/App.hpp>
#include <CLI/Formatter.hpp>
#include <string>

namespace c2r::cli {

/// CLI11's layout with long descriptions broken between words. The commands
/// of an example, lines that begin with "  c2r", "  mpirun" or "  python", stay
/// whole.
class HelpFormat : public CLI::Formatter {
 public:
  std::string make_option(const CLI::Option* option, bool is_positional) const override;
  std::string make_subcommand(const CLI::App* command) const override;
  std::string make_description(const CLI::App* command) const override;
  std::string make_footer(const CLI::App* command) const override;
};

/// @returns the page for man(1) in troff: the help of the program and of each command
std::string manual_page(const CLI::App& app);

}  // namespace c2r::cli
