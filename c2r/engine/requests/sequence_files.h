// Reads the token sequences that a model scores, profiles or continues from files of texts and from
// JSON files of token ids.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/core/ids.h"
#include "c2r/io/json.h"
#include "c2r/model/config.h"
#include "c2r/tokenizer/tokenizer.h"

namespace c2r {

/// Returns the text of a file. A program may give one that knows more names, as "-" for standard
/// input; the library itself reads files only.
using TextReader = std::function<std::string(const std::string& path)>;

/// Reads a file of text, decompressed if its name ends in .xz, .gz or .zst.
/// @returns its text
/// @throws Error(kInvalidFile) if it cannot be read, or as check_utf8()
std::string read_utf8_file(const std::string& path);

/// @param name names the text in messages
/// @throws Error(kInvalidFile) if `text` is not UTF-8; the message has the place, and the remedy if
///         another program has compressed the text
void check_utf8(std::string_view text, const std::string& name);

/// Turns texts into the token ids of a model. The tokenizer is loaded when it is first needed, so
/// that a model without one can run token ids.
class TextEncoder {
 public:
  /// @param model_folder has the tokenizer's files
  /// @param config must outlive this object
  TextEncoder(std::filesystem::path model_folder, const ModelConfig& config)
      : folder_(std::move(model_folder)), config_(config) {}

  /// Chooses whether texts get the tokens that the model expects around them. They do at first.
  void set_template(Template applied) { template_ = applied; }

  /// @throws Error(kInvalidFile) if it has more tokens than the model; as Tokenizer::load()
  const Tokenizer& tokenizer();

  /// @returns Tokenizer::first_token() of the model's tokenizer
  /// @throws Error(kInvalidFile) if the tokenizer has none; as tokenizer()
  TokenId first_token();

  const ModelConfig& config() const { return config_; }

  /// Turns a JSON value into tokens: a string is tokenized, an array of integers is read as ids.
  /// @param place names the value in messages
  /// @returns the tokens
  /// @throws Error(kInvalidFile) if it is neither, or an id is not in [0, vocab_size)
  std::vector<TokenId> tokens_of(const Json& value, std::string_view place);

 private:
  std::filesystem::path folder_;
  const ModelConfig& config_;
  std::optional<Tokenizer> tokenizer_;
  Template template_ = Template::kApply;
};

/// Reads a file of JSON values, one a line, one at a time. Memory: the file's text.
class JsonLines {
 public:
  /// @throws what `read` throws
  explicit JsonLines(const std::string& path, const TextReader& read = read_utf8_file);

  /// @returns the next value, or nothing at the end; empty lines are skipped
  /// @throws Error(kInvalidFile) if a line is not JSON
  std::optional<Json> next();
  /// @returns "FILE:3", the line of the value that next() returned last
  std::string place() const;
  /// @returns the number of that line, from 1
  std::int64_t line() const { return line_; }

 private:
  std::string path_, text_;
  std::size_t begin_ = 0;
  std::int64_t line_ = 0;
};

struct SequenceFiles {
  std::vector<std::string> texts;   // one text each; *.jsonl, *.ndjson: {"text": "..."} a line
  std::vector<std::string> tokens;  // an array of token ids a line
};

/// Where a sequence comes from.
struct SequencePlace {
  std::string input;                 // the file, as it was named
  std::optional<std::int64_t> line;  // from 1; none: the file is one text
};

/// Reads the token sequences of files one by one, first those of the texts.
class SequenceReader {
 public:
  /// @param files,encoder must outlive this object
  /// @throws Error(kInvalidArgument) if a text is neither plain text nor JSON lines, by its name
  SequenceReader(const SequenceFiles& files, TextEncoder& encoder,
                 TextReader read = read_utf8_file);

  /// @returns the next sequence, or nothing at the end
  /// @throws Error(kInvalidFile), naming the file and the line
  std::optional<std::vector<TokenId>> next();
  /// @returns the place of the sequence that next() returned last
  const SequencePlace& place() const { return place_; }

 private:
  std::optional<std::vector<TokenId>> next_of_lines();

  const SequenceFiles& files_;
  TextEncoder& encoder_;
  TextReader read_;
  std::size_t next_file_ = 0;       // of texts, then of tokens
  std::optional<JsonLines> lines_;  // of the file that is being read, if it has lines
  SequencePlace place_;
};

}  // namespace c2r
