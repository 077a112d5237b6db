// Small collectives over any Transport: every rank of the group calls them, in the same order.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "c2r/transport/transport.h"

namespace c2r {

enum class Reduction { kSum, kMax };

/// Replaces each value by its sum or maximum over all ranks. "Did anybody fail?" is the maximum of
/// a 0 or 1. `values` has the same length on every rank.
///
/// Every rank sends its values to every other: ep_size - 1 messages of 8 bytes a value. That is one
/// latency, and whoever waits, waits for the rank that is missing itself, where a tree would make
/// it wait for a rank that waits for another. For a handful of values, not for gradients.
///
/// @throws as Exchange::wait()
void all_reduce(Transport& transport, std::span<std::int64_t> values, Reduction reduction,
                std::string label);

/// Returns when every rank has called it. ep_size - 1 messages of 1 byte.
/// @throws as Exchange::wait()
void barrier(Transport& transport, std::string label);

}  // namespace c2r
