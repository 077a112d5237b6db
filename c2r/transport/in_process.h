// Ranks as threads of one process: the transport for tests, simulation and debugging.
#pragma once

#include <chrono>
#include <functional>

#include "c2r/transport/transport.h"

namespace c2r {

/// Runs `body` once per rank, each on a thread of its own, and returns when all have finished. The
/// part that is started last, at either end, copies the bytes, so start() takes as long as that.
///
/// If a body throws, every other rank's waits throw at once; the failure that happened first is
/// rethrown here, an Error with "rank N: " in front of it. A thread cannot be ended from outside:
/// this returns only when a body that is stuck outside the transport returns.
///
/// @throws Error(kInvalidArgument) if `ep_size` or `timeout` is not positive,
///         Error(kUnsupported) if the machine cannot start so many threads
///
/// Cost: a thread per rank, O(ep_size^2) memory of some 100 bytes a pair.
void run_in_process(std::int32_t ep_size, const std::function<void(Transport&)>& body,
                    std::chrono::milliseconds timeout = std::chrono::seconds(30));

}  // namespace c2r
