// What models run on: texts and token ids, from files.
#pragma once

#include <CLI/App.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "c2r/core/ids.h"
#include "c2r/io/json.h"
#include "c2r/model/config.h"
#include "c2r/tokenizer/tokenizer.h"

namespace c2r::cli {

/// A model's tokenizer, loaded when it is first needed: token ids go without.
class TextCoder {
 public:
  /// @param config must outlive this object
  TextCoder(std::string folder, const ModelConfig& config)
      : folder_(std::move(folder)), config_(config) {}

  /// @throws Error(kInvalidFile) if it has more tokens than the model
  const Tokenizer& tokenizer();

  /// The tokens of a JSON value: text, or an array of token ids.
  /// @throws Error(kInvalidFile), naming `place`
  std::vector<TokenId> tokens_of(const Json& value, std::string_view place);

 private:
  std::string folder_;
  const ModelConfig& config_;
  std::optional<Tokenizer> tokenizer_;
};

/// Reads a file of JSON values, one a line, one at a time.
class JsonLines {
 public:
  /// @param path "-" is standard input
  explicit JsonLines(const std::string& path);

  /// The next value, or nothing at the end; empty lines are skipped.
  std::optional<Json> next();
  /// "FILE:3", the line that next() returned last.
  std::string place() const;
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

/// Adds --text and --tokens.
void add_sequence_files(CLI::App& command, SequenceFiles& files);

/// Where a sequence comes from.
struct SequencePlace {
  std::string input;                 // the file, as it was named
  std::optional<std::int64_t> line;  // from 1; none: the file is one text
};

/// The token sequences of some files, one after another.
class Sequences {
 public:
  /// Both must outlive this object. @throws Error(kInvalidArgument) if there is no file, or one is
  ///         neither text nor JSON lines
  Sequences(const SequenceFiles& files, TextCoder& coder);

  std::optional<std::vector<TokenId>> next();
  /// Of the sequence that next() returned last.
  const SequencePlace& place() const { return place_; }

 private:
  const SequenceFiles& files_;
  TextCoder& coder_;
  std::size_t next_file_ = 0;  // of texts, then of tokens
  std::optional<JsonLines> lines_;
  SequencePlace place_;
};

}  // namespace c2r::cli
