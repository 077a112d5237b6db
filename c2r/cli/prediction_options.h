// The options of the commands that predict, which mean the same in each of them.
#pragma once

#include <CLI/App.hpp>
#include <optional>
#include <string>

#include "c2r/plan/engines/engine.h"
#include "c2r/plan/prediction/predict.h"

namespace c2r::cli {

inline constexpr const char* kClusterHelp =
    "nodes x ranks per node, such as 1x8 or 2x4, or a JSON file with bandwidths "
    "(docs/formats.md)";

struct PredictionOptions {
  std::string cluster, part = "all";
  std::string copy_mode;  // empty: default_copy_mode()
  std::string rule;       // empty: the engine's, or fewest-ranks
  std::string engine, backend, phase = "prefill";
  std::string hardware, dispatch_type = "bf16", weight_type = "bf16";
  std::int64_t batch_tokens = 0, wire_width = 0;
  std::optional<double> tokens_per_second;
  std::string homes = "uniform", overlap = "added";
  std::int64_t hidden = 0, intermediate = 0;
  std::uint64_t seed = 0;
  bool is_json = false, prints_layers = false;
  int num_threads = 0;
};

/// Adds --layers.
void add_layers_option(CLI::App& command, bool& prints_layers);

/// Adds the options that say what is predicted, but no positional argument.
void add_prediction_options(CLI::App& command, PredictionOptions& options);

/// Adds the options that say how predictions are printed: --tokens-per-second, --json and --layers.
void add_printing_options(CLI::App& command, PredictionOptions& options);

/// @returns the request of the options
/// @throws Error(kInvalidArgument) if a name is unknown, or if times are asked for and the cluster
///         has no device_flop_per_s
PredictRequest request_of(const PredictionOptions& options, const Cluster& cluster);

/// Adds --engine and --backend.
void add_engine_options(CLI::App& command, std::string& engine, std::string& backend);

/// Adds --phase.
void add_phase_option(CLI::App& command, std::string& phase);

/// Adds --batch-tokens.
void add_batch_tokens_option(CLI::App& command, std::int64_t& batch_tokens);

/// Adds --hardware.
void add_hardware_option(CLI::App& command, std::string& hardware);

/// @returns the cluster with the links and rates of --hardware; as it is without
/// @throws as read_hardware()
Cluster on_hardware(const Cluster& cluster, const std::string& hardware);

/// @param phase "prefill" or "decode"
/// @returns the engine and backend of the options, nothing without --engine
/// @throws Error(kInvalidArgument), listing the names
std::optional<EngineBackend> engine_of(const std::string& engine, const std::string& backend,
                                       const std::string& phase);
std::optional<EngineBackend> engine_of(const PredictionOptions& options);

/// @returns the format of a copy if --hidden is given, else nothing
std::optional<CopyFormat> format_of(const PredictionOptions& options);

}  // namespace c2r::cli
