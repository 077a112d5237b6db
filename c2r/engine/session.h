// A model that is ready to run, in one process or on the ranks of a transport: opens the model and
// its plan, and does what ranks have to check and agree on before the first pass.
//
//   run_mpi([&](Transport& transport) {
//     Session session({.model = "model", .plan = "plan.json"}, transport);
//     score_all(session.engine(), next_request, on_score, progress);
//   }, timeout, report);
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "c2r/dispatch/dispatch.h"
#include "c2r/engine/engine.h"
#include "c2r/model/model.h"
#include "c2r/model/moe/expert_parallel.h"
#include "c2r/placement/cost/volume.h"
#include "c2r/transport/transport.h"

namespace c2r {

struct SessionOptions {
  std::filesystem::path model;  // a folder with config.json and *.safetensors
  // Its collaborator lists, if it has some, replace the config's, and its placements are those of
  // the experts on ranks. Empty: there is no plan, and experts are placed contiguously.
  std::filesystem::path plan;
  Arithmetic arithmetic = Arithmetic::kBf16;
  // Of this rank. None: the processors of the machine, divided by the ranks that share them.
  std::optional<int> num_threads;
  std::int64_t max_pass_tokens = EngineOptions{}.max_pass_tokens;

  // The rest is for several ranks.
  std::optional<CopyMode> copy_mode;       // none: default_copy_mode() of the plan's cluster
  std::optional<ElementType> row_type;     // none: as `arithmetic`
  std::optional<std::int32_t> num_chunks;  // of a pass; none: chosen for each pass
  // Memory of this machine for the weights of its ranks. None: what Linux says is available, and
  // nothing is checked where it does not say.
  std::optional<std::int64_t> available_bytes;
};

/// Is called with one line that tells the user of something unexpected.
using WarningObserver = std::function<void(const std::string& warning)>;

class Session {
 public:
  /// Opens a session in which this process has all experts; the plan's placements are not used.
  /// @param warn called if the plan's collaborator lists replace those of the config, and if files
  ///        of the folder are not used
  /// @throws as Model() and Engine()
  explicit Session(const SessionOptions& options, const WarningObserver& warn = {});

  /// Opens a session that is one rank of several. Collective.
  ///
  /// An error on one rank is known on all: each throws the same one, and the transport works as
  /// before, so that all ranks can end in order. Only if the transport fails, other ranks may not
  /// know of it; is_transport_failure() tells these errors.
  ///
  /// @param transport must outlive this object
  /// @param warn called on rank 0, also if there is no plan
  /// @throws as Model() and Engine(), check_memory() and check_same_run(); Error(kInvalidArgument)
  ///         if the plan is for another number of ranks; as Exchange::wait()
  /// Cost: reads the gates and samples of all weights, see check_same_run(); a few dozens of bytes
  /// from each rank to each other.
  Session(const SessionOptions& options, Transport& transport, const WarningObserver& warn = {});

  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  const Model& model() const { return *model_; }
  Engine& engine() { return *engine_; }
  /// @returns whether this is the rank that has the input and takes the results
  bool is_first_rank() const { return engine_->is_first_rank(); }
  /// @returns where experts are and how tokens travel; without placements if this process has all
  ///          experts
  const ExpertParallelOptions& expert_parallel() const { return expert_parallel_; }

 private:
  std::optional<Model> model_;
  ExpertParallelOptions expert_parallel_;
  std::optional<Engine> engine_;
};

/// Combines the placements of the model's plan, or contiguous ones without a plan, with the
/// dispatch options that `options` asks for.
/// @param model opened with options.plan
/// @returns the options of an Engine on ranks
/// @throws Error(kInvalidArgument) if the plan is for another number of ranks
ExpertParallelOptions expert_parallel_options(const SessionOptions& options, const Model& model,
                                              std::int32_t ep_size);

}  // namespace c2r
