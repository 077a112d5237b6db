// Ranks as MPI processes. Tested with Open MPI 4.1 and MPICH 4.0.
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "c2r/transport/transport.h"

namespace c2r {

/// Makes this process a rank of MPI_COMM_WORLD for as long as `body` runs; every process calls it,
/// once in its life. The ranks end together: this returns when every body has returned.
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
void run_mpi(const std::function<void(Transport&)>& body, std::chrono::milliseconds timeout,
             const std::function<void(const std::string& line)>& report);

}  // namespace c2r
