// Runs the model of a command in one process or on several ranks.
#pragma once

#include <functional>
#include <memory>

#include "c2r/cli/model_options.h"
#include "c2r/engine/engine.h"
#include "c2r/engine/requests/sequence_files.h"

namespace c2r::cli {

/// The model of one rank. Rank 0 has the input and writes the results.
struct OpenModel {
  const Model& model;
  Engine& engine;
  TextEncoder& encoder;
  // Whether the results are lines of JSON on standard output, after which the summary of a run on
  // ranks comes as another one. A command sets it before its work.
  bool prints_json = false;

  bool is_first_rank() const { return engine.is_first_rank(); }
};

/// The work of a command. Every rank calls it once all ranks know that none of them has failed.
using Work = std::function<void()>;
/// The checks and reads of a command before its work.
/// @returns the work
using Prepare = std::function<Work(OpenModel&)>;

/// Opens the model and runs `prepare`, then the work that it returns, on every rank.
///
/// If `prepare` throws on a rank, or if the model or the plan is wrong or the memory too small, one
/// rank prints one line before any work begins, and all ranks end. At the end of a run on several
/// ranks, rank 0 prints what run_summary.h says.
/// @throws CLI::RuntimeError after such a line
/// @throws as run_ranks(), and in one process what `prepare` or its work throws
void run_model(const ModelOptions& options, const Prepare& prepare);

}  // namespace c2r::cli
