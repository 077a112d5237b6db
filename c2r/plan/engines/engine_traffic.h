// What a user's engine sends over the wire, with experts in order as it places them today and under
// a plan.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "c2r/core/progress.h"
#include "c2r/placement/cost/traffic_model.h"
#include "c2r/placement/cost/volume.h"
#include "c2r/plan/engines/engine.h"
#include "c2r/plan/prediction/predict.h"
#include "c2r/plan/routed_tokens.h"

namespace c2r {

/// Copies on the wire: means over layers, per token.
struct WireCopies {
  double dispatch = 0, combine = 0;

  /// @returns the bytes of these copies, dispatch and combine together
  double bytes(const CopyFormat& format) const;
  bool operator==(const WireCopies&) const = default;
};

/// The copies of one kernel of a backend.
struct KernelTraffic {
  ExchangeKernel kernel;
  // Both are empty if no copy mode describes the kernel.
  std::optional<WireCopies> today;    // with contiguous experts
  std::optional<WireCopies> planned;  // with those of the plan
};

struct EngineTraffic {
  EngineBackend use;
  std::vector<KernelTraffic> kernels;  // in the order of the backend's
  std::int64_t num_layers = 0;
};

/// @returns `request` with the copy mode of the backend's first kernel, the engine's replica rule,
///          and what the engine does today as its base: "SGLang, DeepEP normal". Where no copy mode
///          describes that kernel, mode and base stay as they are
PredictRequest for_engine(const EngineBackend& use, PredictRequest request);

/// Counts what each kernel of the backend sends.
/// @param placements of the plan. [num_layers]
/// @param traffic of which the cluster, the seed, the homes and the replica rule are taken
/// @throws as reach_of()
///
/// Cost: reach_of() twice.
EngineTraffic predict_engine_traffic(const EngineBackend& use,
                                     std::span<const Placement> placements,
                                     const RoutedTokens& tokens, const TrafficModel& traffic,
                                     int num_threads, Progress& progress);

}  // namespace c2r
