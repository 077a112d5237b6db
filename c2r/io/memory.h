// The memory that this process uses and the machine has left. Where /proc does not tell, functions
// return nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace c2r {

/// @returns the bytes of physical memory that the pages of this process take, mapped files included
std::optional<std::int64_t> resident_bytes();

/// @param memory for example a mapped file
/// @returns the bytes of the pages of `memory` that are in physical memory: pages that this process
///          has read or written, and pages that the kernel has mapped around them (up to 64 KiB)
/// Cost: reads 8 bytes for each page of `memory`.
std::optional<std::int64_t> resident_bytes(std::span<const std::byte> memory);

/// @returns the bytes that the machine could provide without swapping: free memory, and cached
///          files that can be dropped. The limit of a container (cgroup) may be lower; it is not
///          considered.
std::optional<std::int64_t> available_bytes();

}  // namespace c2r
