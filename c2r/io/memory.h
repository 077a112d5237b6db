// What memory this process has and uses, as Linux says.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace c2r {

/// Bytes of physical memory that the process's pages take, files that it maps included.
/// @throws Error(kUnsupported) if /proc does not say
std::int64_t resident_bytes();

/// The same of the pages of `memory`, say a mapped file: those that this process has touched, or
/// that the kernel has mapped beside them (up to 64 KiB around). Whole pages.
/// @throws Error(kUnsupported) if /proc does not say
/// Cost: reads 8 bytes for each page of `memory`.
std::int64_t resident_bytes(std::span<const std::byte> memory);

/// Bytes that could be used without swapping: what is free, and files that can be dropped.
/// @throws Error(kUnsupported) if /proc does not say
std::int64_t available_bytes();

}  // namespace c2r
