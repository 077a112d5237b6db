// Finds out by what is in a file which import format it has.
#pragma once

#include <filesystem>
#include <string>

namespace c2r {

/// What an input looks like.
struct RecognizedInput {
  std::string format;  // the name of an ImportFormat; empty if none is known that reads it
  std::string what;  // in words, for messages: "a torch file of SGLang's recorder, mode per_token"
};

/// Looks at a file or folder, by its content and never by its name.
/// @throws Error(kInvalidFile) if it cannot be read, or begins like a format and is broken
/// Cost: reads the input once; parses of JSON lines only the first, of arrays and tensors no
///       elements but at most one matrix of pairs.
RecognizedInput recognize_input(const std::filesystem::path& path);

}  // namespace c2r
