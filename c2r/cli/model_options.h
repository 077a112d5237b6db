// The options that commands which run a model have in common.
#pragma once

#include <CLI/App.hpp>
#include <cstdint>
#include <string>

#include "c2r/engine/engine.h"

namespace c2r::cli {

struct ModelOptions {
  std::string model, plan, dtype = "bf16";
  std::int64_t chunk_tokens = EngineOptions{}.chunk_tokens;
  int num_threads = 0;

  EngineOptions engine() const;
};

/// Adds the model's folder, --plan, --dtype, --chunk-tokens and --threads.
void add_model_options(CLI::App& command, ModelOptions& options);

}  // namespace c2r::cli
