// What run_mpi() and the tests need of the MPI transport beside its public function.
#pragma once

#include <mpi.h>

#include <atomic>
#include <chrono>
#include <memory>

#include "c2r/transport/transport.h"

namespace c2r {

/// As the public function, and waits can be interrupted.
/// @param interrupted if it becomes true, waits throw; outlives the transport
std::unique_ptr<Transport> make_mpi_transport(MPI_Comm comm, std::chrono::milliseconds timeout,
                                              const std::atomic<bool>& interrupted);

}  // namespace c2r
