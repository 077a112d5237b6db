// What memory this process has and uses. Nothing is known where /proc does not say it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace c2r {

/// Bytes of physical memory that the process's pages take, files that it maps included.
std::optional<std::int64_t> resident_bytes();

/// The same of the pages of `memory`, say a mapped file: those that this process has touched, or
/// that the kernel has mapped beside them (up to 64 KiB around). Whole pages.
/// Cost: reads 8 bytes for each page of `memory`.
std::optional<std::int64_t> resident_bytes(std::span<const std::byte> memory);

/// Bytes of the machine that could be used without swapping: what is free, and files that can be
/// dropped. The limit of a container (cgroup) may be lower and is not looked at.
std::optional<std::int64_t> available_bytes();

}  // namespace c2r
