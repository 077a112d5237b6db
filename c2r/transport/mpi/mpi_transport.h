// Ranks as MPI processes. Tested with Open MPI 4.1 and MPICH 4.0.
//
// A program that has MPI of its own makes a transport from any of its communicators:
//
//   const auto transport = c2r::make_mpi_transport(comm, std::chrono::seconds(60));
//
// For a program that has not, run_mpi() of c2r/transport/mpi/run_mpi.h does the rest: it starts and
// ends MPI, and ends all ranks when one fails.
#pragma once

#include <mpi.h>

#include <chrono>
#include <memory>

#include "c2r/transport/transport.h"

namespace c2r {

/// This process's endpoint among the ranks of `comm`, numbered as there. Collective over `comm`,
/// which is duplicated, so that nothing of the program's own traffic is mixed up with the
/// transport's.
///
/// MPI must be initialized, and the transport must be used by one thread, which MPI allows to call
/// it. A program whose other threads do not call MPI, such as those of a ThreadPool, asks
/// MPI_Init_thread() for MPI_THREAD_FUNNELED. The transport must be destroyed before
/// MPI_Finalize().
///
/// A transport that fails throws and leaves MPI as it is; to end the other ranks is up to the
/// program. From this call on, errors of MPI_COMM_WORLD and MPI_COMM_SELF are returned
/// (MPI_ERRORS_RETURN) instead of ending the process, since waits need that.
///
/// @param timeout of each wait, the one for all ranks to come here included
/// @returns a transport; its communicator is not freed, as that may wait for a rank that is dead
/// @throws Error(kInvalidArgument) if `timeout` is not positive, MPI is not initialized or has been
///         finalized, or `comm` is MPI_COMM_NULL
/// @throws Error(kTimeout) if not all ranks have come within the timeout
/// Cost: one communicator for the life of the process.
std::unique_ptr<Transport> make_mpi_transport(MPI_Comm comm, std::chrono::milliseconds timeout);

}  // namespace c2r
