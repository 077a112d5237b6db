// The options that commands which run a model have in common.
#pragma once

#include <CLI/App.hpp>
#include <cstdint>
#include <optional>
#include <string>

#include "c2r/cli/ranks.h"
#include "c2r/engine/session.h"

namespace c2r::cli {

struct ModelOptions {
  std::string command;  // whose options they are
  std::string model, plan, dtype = "bf16";
  std::int64_t max_pass_tokens = EngineOptions{}.max_pass_tokens;
  int num_threads = 0;  // 0: all processors, shared by the ranks of a machine
  // Of several ranks:
  RankOptions ranks{.timeout_s = 120};  // while rank 0 reads a long text, others wait
  std::string copy_mode;                // empty: default_copy_mode()
  std::string row_type;                 // empty: the dtype
  std::optional<std::int32_t> num_chunks;

  /// @throws Error(kInvalidArgument) if a name is unknown
  SessionOptions session() const;
};

/// Adds all of them. @param options may hold defaults of its own
void add_model_options(CLI::App& command, ModelOptions& options);

}  // namespace c2r::cli
