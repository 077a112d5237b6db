// The options of plans and of predictions that have the same names.
#pragma once

#include <optional>

#include "c2r/placement/cluster.h"
#include "c2r/placement/cost/volume.h"
#include "c2r/plan/engines/engine.h"
#include "c2r/plan/prediction/predict.h"
#include "python/src/arguments.h"

namespace c2r::python {

/// @returns the engine and backend of the options engine, backend and phase; nothing without engine
/// @throws Error(kInvalidArgument), listing the names
std::optional<EngineBackend> engine_of(const nb::dict& options);

/// @returns the cluster with the links and rates of the option hardware
/// @throws Error as read_hardware()
Cluster on_hardware(const Cluster& cluster, const nb::dict& options);

/// @param cluster with the hardware of the options
/// @throws Error(kInvalidArgument) if a name is unknown, or options contradict each other
PredictRequest predict_request(const Cluster& cluster, const nb::dict& options);

/// @returns the format of a copy; nothing without the option hidden
/// @throws Error(kInvalidArgument) if a number is negative
std::optional<CopyFormat> copy_format(const nb::dict& options);

struct Counting {
  SequencePart on = SequencePart::kAll;
  int num_threads = 1;
};

/// @returns the options on and num_threads
/// @throws Error(kInvalidArgument) if the part is unknown or the number negative
Counting counting(const nb::dict& options);

}  // namespace c2r::python
