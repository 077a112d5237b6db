// The memory that this process uses and the machine has left. Where /proc does not tell, functions
// return nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
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

/// @param root of the file system that describes the machine; another one for tests
/// @returns the bytes that this process could use without swapping: free memory, and cached files
///          that can be dropped, within the limits of its control groups (v1 and v2), as containers
///          and batch systems set them
std::optional<std::int64_t> available_bytes(const std::filesystem::path& root = "/");

}  // namespace c2r
