// Ranks as threads of one process: the transport for tests, simulation and debugging.
#pragma once

#include <chrono>
#include <functional>

#include "c2r/transport/transport.h"

namespace c2r {

/// Runs `body` once for each rank, each on its own thread, and returns when all have finished. Of
/// the two ranks of a part, the one that calls start() later copies the bytes within that call.
///
/// If a body throws, the waits of all other ranks throw at once, and the failure that happened
/// first is rethrown here; the message of an Error begins with "rank N: ". A thread cannot be ended
/// from outside, so this does not return while a body hangs outside the transport.
///
/// @throws Error(kInvalidArgument) if `ep_size` or `timeout` is not positive,
///         Error(kUnsupported) if the machine cannot start so many threads
///
/// Cost: one thread for each rank; some 100 bytes of memory for each pair of ranks.
void run_in_process(std::int32_t ep_size, const std::function<void(Transport&)>& body,
                    std::chrono::milliseconds timeout = std::chrono::seconds(30));

}  // namespace c2r
