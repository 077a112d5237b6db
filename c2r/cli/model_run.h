// A model, run by one process or by the ranks that mpirun has started.
#pragma once

#include <functional>
#include <memory>

#include "c2r/cli/model_options.h"
#include "c2r/engine/engine.h"
#include "c2r/engine/sequence_files.h"

namespace c2r::cli {

/// One rank's model. Rank 0 has the input and writes the results.
struct OpenModel {
  const Model& model;
  Engine& engine;
  TextEncoder& encoder;

  bool is_first_rank() const { return engine.is_first_rank(); }
};

/// What a command does once it is known that no rank has failed. Every rank calls it.
using Work = std::function<void()>;
/// What a command checks and reads before that. @returns its work
using Prepare = std::function<Work(OpenModel&)>;

/// Opens the model and runs `prepare`, then the work that it returns, on every rank.
///
/// Whatever `prepare` throws on a rank, and what is wrong with the model, the plan or the memory,
/// is said in one line by one rank, before any work; all ranks end. On several ranks, rank 0 says
/// afterwards on standard error what memory each used.
/// @throws CLI::RuntimeError after such a line; as run_ranks(); without ranks whatever is thrown
void run_model(const ModelOptions& options, const Prepare& prepare);

}  // namespace c2r::cli
