// Decompression of whole files by the libraries of their formats: xz, gzip and zstd.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <span>

namespace c2r {

/// @returns whether the name ends in .xz, .gz or .zst
bool is_compressed(const std::filesystem::path& path);

/// Passes what a compressed file holds to `append`, part by part. Several streams in one file, as
/// `cat` makes them, are one content.
/// @param path a name for which is_compressed() is true; its ending is the format
/// @throws Error(kInvalidFile) if the file is of another format, broken or cut off, or if its
///         content is much larger than the file or than the free memory
void decompress(std::span<const std::byte> file, const std::filesystem::path& path,
                const std::function<void(std::span<const std::byte> part)>& append);

}  // namespace c2r
