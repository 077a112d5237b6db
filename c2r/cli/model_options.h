// The options of all commands that run a model.
#pragma once

#include <CLI/App.hpp>
#include <cstdint>
#include <optional>
#include <string>

#include "c2r/cli/ranks.h"
#include "c2r/engine/session.h"

namespace c2r::cli {

struct ModelOptions {
  std::string command;  // the name of the command, for messages
  std::string model, plan, dtype = "bf16";
  std::int64_t max_pass_tokens = EngineOptions{}.max_pass_tokens;
  int num_threads = 0;  // 0: all processors, shared by the ranks of a machine
  // For several ranks:
  RankOptions ranks{.timeout_s = 120};  // the others wait while rank 0 reads a long text
  std::string copy_mode;                // empty: default_copy_mode()
  std::string row_type;                 // empty: the dtype
  std::optional<std::int32_t> num_chunks;

  /// @returns the options of the session
  /// @throws Error(kInvalidArgument) if a name is unknown
  SessionOptions session() const;
};

/// Adds all of them to a command.
/// @param options may have other defaults than a new ModelOptions
void add_model_options(CLI::App& command, ModelOptions& options);

}  // namespace c2r::cli
