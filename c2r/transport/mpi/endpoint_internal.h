// One rank's endpoint on a communicator of its own; apart from run_mpi() for the conformance test,
// which needs many in one process.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>

#include "c2r/transport/transport.h"

namespace c2r {

/// A transport over all of MPI_COMM_WORLD. Collective. MPI must be initialised, and be used by this
/// thread alone.
/// @param interrupted if it becomes true, waits throw; outlives the transport
std::unique_ptr<Transport> make_mpi_transport(std::chrono::milliseconds timeout,
                                              const std::atomic<bool>& interrupted);

}  // namespace c2r
