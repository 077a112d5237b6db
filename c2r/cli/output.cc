#include "c2r/cli/output.h"

#include <unistd.h>

#include <cstdlib>
#include <iostream>

#include "c2r/io/file.h"

namespace c2r::cli {

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
