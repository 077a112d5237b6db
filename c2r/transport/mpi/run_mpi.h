// Runs a function on the ranks that mpirun has started; names no type of MPI.
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "c2r/transport/transport.h"

namespace c2r {

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
/// MPI_Init_thread() waits for all ranks without a limit. If it has not returned within the
/// timeout, and 10 s at least, a thread of its own gives `report` one line and ends the process
/// with exit status 1. This, the end of a run that failed, and SIGALRM if MPI_Finalize() hangs are
/// the exceptions to the rule that the library never ends a process.
///
/// Parts of more than 8 MiB travel in pieces. A wait keeps one processor busy for a millisecond,
/// then polls every 50 us.
///
/// @param timeout of each wait, those for all to start and to end included
/// @param report called by this thread or, if MPI does not start, by another one
/// @throws Error(kInvalidArgument) if `timeout` is not positive
/// @throws Error(kUnsupported) if MPI does not allow this rank to have threads of its own
void run_mpi(const std::function<void(Transport&)>& body, std::chrono::milliseconds timeout,
             const std::function<void(const std::string& line)>& report);

}  // namespace c2r
