// Measures what the links of a cluster carry, for predictions of time (`c2r bench exchange
// --hardware-out`).
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "c2r/placement/cluster.h"
#include "c2r/placement/hardware.h"
#include "c2r/transport/transport.h"

namespace c2r {

/// The time of messages of one size between two ranks, both ways at once.
struct LinkTime {
  double bytes = 0, seconds = 0;
};

/// Fits seconds = latency + bytes / bandwidth, so that the squares of the relative errors are
/// least.
/// @param times of at least two sizes
/// @returns the link; a latency below 0 is 0
/// @throws Error(kInvalidArgument) if the times do not grow with the sizes
Link fit_link(std::span<const LinkTime> times);

/// Collective. On each level all ranks exchange messages of 1 KiB to 4 MiB with a partner at once,
/// so that ranks that share a cable share it here, too; the slowest rank counts.
/// @param cluster of which the shape is taken: as many ranks as the transport has
/// @param num_rounds of each size, of which the median counts
/// @returns the links; with one node or one rank a node, both are the level that there is
/// @throws Error(kInvalidArgument) if the shape is of another number of ranks, or if there is only
///         one rank; as Exchange::wait()
Hardware measure_links(Transport& transport, const Cluster& cluster, std::int32_t num_rounds);

}  // namespace c2r
