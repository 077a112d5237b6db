// Lays out the help of commands in lines that fit a terminal.
#include "c2r/cli/help_format.h"

#include <algorithm>
#include <sstream>
#include <string_view>

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

// Where the text of a line "  name   what it means" begins; 0 for other lines.
std::size_t column_of_meaning(std::string_view line) {
  const std::size_t name = line.find_first_not_of(' ');
  if (name == 0 || name == std::string_view::npos) return 0;
  const std::size_t gap = line.find("  ", name);
  return gap == std::string_view::npos ? 0
                                       : std::min(line.size(), line.find_first_not_of(' ', gap));
}

// Text as troff shows it unchanged: no escapes, and no line that begins with a request.
std::string troff_text(std::string_view text) {
  std::string out;
  bool begins_line = true;
  for (const char c : text) {
    if (begins_line && (c == '.' || c == '\'')) out += "\\&";
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else {
      out += c;
    }
    begins_line = c == '\n';
  }
  return out;
}

// A section for each command below `parent`, which is called as `name`.
std::string manual_sections(const CLI::App& parent, const std::string& name) {
  std::string text;
  for (const CLI::App* const command : parent.get_subcommands({})) {
    const std::string full_name = name + " " + command->get_name();
    text += ".SH \"" + full_name + "\"\n.nf\n" + troff_text(command->help(name)) + ".fi\n";
    text += manual_sections(*command, full_name);
  }
  return text;
}

}  // namespace

std::string manual_page(const CLI::App& app) {
  return ".TH C2R 1\n.SH NAME\nc2r \\- " + troff_text(app.get_description()) +
         "\n.SH SYNOPSIS\n.nf\n" + troff_text(app.help()) + ".fi\n" +
         manual_sections(app, app.get_name());
}

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
    const std::size_t column = is_command ? 0 : column_of_meaning(line);
    text += line.substr(0, column);
    text += (is_command ? line : wrap_text(line.substr(column), column)) + "\n";
  }
  return text;
}

}  // namespace c2r::cli
