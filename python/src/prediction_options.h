// The options of plans and of predictions that have the same names.
#pragma once

#include <optional>

#include "c2r/placement/cluster.h"
#include "c2r/plan/engines/engine.h"
#include "python/src/arguments.h"

namespace c2r::python {

/// @returns the engine and backend of the options engine, backend and phase; nothing without engine
/// @throws Error(kInvalidArgument), listing the names
std::optional<EngineBackend> engine_of(const nb::dict& options);

/// @returns the cluster with the links and rates of the option hardware
/// @throws Error as read_hardware()
Cluster on_hardware(const Cluster& cluster, const nb::dict& options);

}  // namespace c2r::python
