// Sends and receives of NCCL. Built only where nvcc and NCCL are.
#pragma once

#include <memory>

#include "c2r/transport/device/stream_network.h"
#include "c2r/transport/transport.h"

namespace c2r {

/// Makes a communicator of all ranks of `transport`, on the current device of the calling thread,
/// of which no two ranks of the group may use the same. Collective: rank 0 makes the communicator's
/// id and sends it to the others.
/// @param transport is used during the call only
/// @throws Error(kTransport) with the name of NCCL's call that failed; as Exchange::wait()
/// Cost: one exchange of 128 bytes with each rank; NCCL's own set-up takes seconds.
std::unique_ptr<GroupedCalls> make_nccl_calls(Transport& transport);

}  // namespace c2r
