// What the commands that run a model have in common: its options, and progress in tokens.
#pragma once

#include <CLI/App.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "c2r/core/progress.h"
#include "c2r/engine/engine.h"
#include "c2r/io/json.h"

namespace c2r::cli {

struct ModelOptions {
  std::string model, plan, dtype = "bf16";
  std::int64_t chunk_tokens = EngineOptions{}.chunk_tokens;
  int num_threads = 0;

  EngineOptions engine() const;
};

/// Adds the model's folder, --plan, --dtype, --chunk-tokens and --threads.
void add_model_options(CLI::App& command, ModelOptions& options);

/// The token ids in `value`, checked against the vocabulary.
/// @throws Error(kInvalidFile)
std::vector<std::int32_t> token_ids(const Json& value, const ModelConfig& config,
                                    std::string_view place);

/// Reads a file of JSON values, one a line, one at a time.
class JsonLines {
 public:
  explicit JsonLines(const std::string& path);

  /// The next value, or nothing at the end; empty lines are skipped.
  std::optional<Json> next();
  /// "FILE:3", the line that next() returned last.
  std::string place() const;

 private:
  std::string path_, text_;
  std::size_t begin_ = 0;
  std::int64_t line_ = 0;
};

}  // namespace c2r::cli
