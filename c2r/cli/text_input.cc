#include "c2r/cli/text_input.h"

#include <iostream>
#include <iterator>
#include <string_view>

#include "c2r/core/error.h"
#include "c2r/core/utf8.h"
#include "c2r/io/file.h"

namespace c2r::cli {

namespace {

void check_text(std::string_view text, const std::string& path) {
  if (is_valid_utf8(text)) return;
  C2R_REQUIRE(!text.starts_with("\x28\xB5\x2F\xFD"), kInvalidFile,
              "{}: is compressed with zstd, not text; decompress it first", path);
  C2R_REQUIRE(!text.starts_with("\x1F\x8B"), kInvalidFile,
              "{}: is compressed with gzip, not text; decompress it first", path);
  std::size_t at = 0;
  for (Utf8Unit unit; at < text.size(); at += unit.num_bytes) {
    unit = first_utf8_unit(text.substr(at));
    if (unit.kind != Utf8Kind::kCharacter) break;
  }
  C2R_THROW(kInvalidFile, "{}: is no text: at byte {} there is no UTF-8 character", path, at);
}

}  // namespace

std::string read_text_input(const std::string& path) {
  std::string text = path == "-" ? std::string(std::istreambuf_iterator<char>(std::cin),
                                               std::istreambuf_iterator<char>())
                                 : read_text_file(path);
  check_text(text, path == "-" ? "standard input" : path);
  return text;
}

}  // namespace c2r::cli
