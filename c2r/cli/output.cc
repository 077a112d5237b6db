// Checks and writes the output file of a command.
#include "c2r/cli/output.h"

#include <unistd.h>

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

bool wants_color() {
  const char* const no_color = std::getenv("NO_COLOR");  // https://no-color.org
  return (no_color == nullptr || *no_color == '\0') && ::isatty(STDOUT_FILENO) != 0;
}

}  // namespace c2r::cli
