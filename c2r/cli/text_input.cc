// Declares the options for texts and token ids, and reads standard input.
#include "c2r/cli/text_input.h"

#include <algorithm>
#include <iostream>
#include <iterator>

#include "c2r/core/error.h"

namespace c2r::cli {

std::string read_text_input(const std::string& path) {
  if (path != "-") return read_utf8_file(path);
  std::string text{std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
  check_utf8(text, "standard input");
  return text;
}

void add_sequence_files(CLI::App& command, SequenceFiles& files) {
  command
      .add_option(
          "--text", files.texts,
          "files, each with one text, or *.jsonl (or .ndjson) with one {\"text\": \"...\"} a "
          "line; also as .xz, .gz or .zst; - is one text from standard input")
      ->type_name("FILES");
  command
      .add_option("--tokens", files.tokens,
                  "files with one JSON array of token ids a line, also as .xz, .gz or .zst; - is "
                  "standard input")
      ->type_name("FILES");
}

void check_sequence_files(const SequenceFiles& files) {
  C2R_REQUIRE(!files.texts.empty() || !files.tokens.empty(), kInvalidArgument,
              "there is no file; give --text or --tokens");
  C2R_REQUIRE(std::ranges::count(files.texts, "-") + std::ranges::count(files.tokens, "-") <= 1,
              kInvalidArgument, "standard input can be read once only");
}

}  // namespace c2r::cli
