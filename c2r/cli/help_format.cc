// Lays out the help of commands in lines that fit a terminal.
#include "c2r/cli/help_format.h"

#include <sstream>

#include "c2r/report/wrap.h"

namespace c2r::cli {
namespace {

// A name, and beside it or, if it is long, below it what it means.
std::string described(const std::string& name, const std::string& description, std::size_t column) {
  std::string text = "  " + name;
  if (description.empty()) return text + "\n";
  const bool fits = text.size() < column;
  text += fits ? std::string(column - text.size(), ' ') : "\n" + std::string(column, ' ');
  return text + wrap_text(description, column) + "\n";
}

}  // namespace

std::string HelpFormat::make_option(const CLI::Option* option, bool is_positional) const {
  return described(make_option_name(option, is_positional) + make_option_opts(option),
                   make_option_desc(option), get_column_width());
}

std::string HelpFormat::make_subcommand(const CLI::App* command) const {
  return described(command->get_display_name(true), command->get_description(), get_column_width());
}

std::string HelpFormat::make_description(const CLI::App* command) const {
  return wrap_text(Formatter::make_description(command));
}

std::string HelpFormat::make_footer(const CLI::App* command) const {
  std::istringstream footer(Formatter::make_footer(command));
  std::string text;
  for (std::string line; std::getline(footer, line);) {
    const bool is_command = line.starts_with("  c2r ") || line.starts_with("  mpirun ") ||
                            line.starts_with("  python ");
    text += (is_command ? line : wrap_text(line)) + "\n";
  }
  return text;
}

}  // namespace c2r::cli
