// Checks and writes the output file of a command.
#include "c2r/cli/output.h"

#include <langinfo.h>
#include <unistd.h>

#include <clocale>
#include <cstdlib>
#include <filesystem>
#include <iostream>

#include "c2r/core/error.h"
#include "c2r/io/file.h"

namespace c2r::cli {
namespace {

void require_other_file(const std::string& path, const std::filesystem::path& input) {
  std::error_code ignored;  // then one of them is not there
  C2R_REQUIRE(!std::filesystem::equivalent(path, input, ignored), kInvalidArgument,
              "--output '{}' would overwrite the input '{}'", path, input.string());
}

}  // namespace

CLI::Option* add_output(CLI::App& command, std::string& path, const std::string& help) {
  return command.add_option("-o,--output", path, help)
      ->check([](const std::string& given) -> std::string {
        if (given == "-") return "takes the name of a file, and '-' is none";
        return given.empty() ? "needs a name" : "";
      })
      ->type_name("FILE");
}

void check_output(const std::string& path, const std::vector<std::string>& inputs) {
  if (path.empty()) return;
  for (const std::string& input : inputs) {
    require_other_file(path, input);
    std::error_code no_folder;
    for (std::filesystem::directory_iterator file(input, no_folder), end; !no_folder && file != end;
         file.increment(no_folder)) {
      require_other_file(path, file->path());
    }
  }
  const AtomicFile can_be_written(path);
}

void write_result(const std::string& path, std::string_view text) {
  if (path.empty()) {
    std::cout << text;
  } else {
    write_text_file(path, text);
  }
}

HeatMapStyle heat_map_style() {
  const auto variable = [](const char* name) {
    const char* const value = std::getenv(name);
    return std::string_view(value == nullptr ? "" : value);
  };
  if (variable("NO_COLOR").empty() && variable("TERM") != "dumb" && ::isatty(STDOUT_FILENO) != 0) {
    return HeatMapStyle::kColors;
  }
  const locale_t locale = ::newlocale(LC_CTYPE_MASK, "", nullptr);  // what the environment says
  if (locale == nullptr) return HeatMapStyle::kAscii;               // it names none that exists
  const bool is_utf8 = std::string_view(::nl_langinfo_l(CODESET, locale)) == "UTF-8";
  ::freelocale(locale);
  return is_utf8 ? HeatMapStyle::kBlocks : HeatMapStyle::kAscii;
}

}  // namespace c2r::cli
