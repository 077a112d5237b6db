// Ranks as MPI processes. Tested with Open MPI 4.1 and MPICH 4.0.
//
// A program that has MPI of its own makes a transport from any of its communicators:
//
//   const auto transport = c2r::make_mpi_transport(comm, std::chrono::seconds(60));
//
// For a program that has not, run_mpi() does the rest: it starts and ends MPI, and ends all ranks
// when one fails.
#pragma once

#include <mpi.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>

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

/// Makes this process a rank of MPI_COMM_WORLD for as long as `body` runs; every process calls it.
/// The ranks end together: this returns when every body has returned.
///
/// If MPI is not initialized, this initializes and finalizes it, which a process can do once in its
/// life. A program that has initialized MPI finalizes it, too.
///
/// If `body` throws, `report` is given one line that begins with "rank N: ", and then MPI_Abort
/// ends all ranks, this one among them, with exit status 1. While `body` runs, SIGINT and SIGTERM
/// (which mpirun sends to all when one has died, or on Ctrl-C) make the wait that is under way, or
/// the next one, throw; so every rank can tell whom it waited for.
///
/// Parts of more than 8 MiB travel in pieces. A wait keeps one processor busy for a millisecond,
/// then polls every 50 us.
///
/// @param timeout of each wait, the last one for all to end included
/// @throws Error(kInvalidArgument) if `timeout` is not positive,
/// @throws Error(kUnsupported) if MPI does not allow this rank to have threads of its own
void run_mpi(const std::function<void(Transport&)>& body, std::chrono::milliseconds timeout,
             const std::function<void(const std::string& line)>& report);

}  // namespace c2r
