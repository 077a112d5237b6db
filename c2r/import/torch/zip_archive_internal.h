// Reader of zip archives whose entries are stored without compression, as torch.save() writes them,
// or deflated, as numpy.savez_compressed() does.
// https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string_view>
#include <vector>

namespace c2r::torch {

/// Whether entries may be compressed.
enum class ZipCompression { kNone, kDeflate };

/// An entry of an archive.
struct ZipEntry {
  std::span<const std::byte> stored;  // as it is in the archive
  std::uint64_t num_bytes = 0;        // of its content
  bool is_deflated = false;           // else the content is `stored`
};

/// The entries of an archive in memory, which is usually a mapped file and outlives this object. An
/// entry is a part of the archive: nothing is copied, and nothing is read but the directory and the
/// headers.
///
/// Checksums are not compared: torch.save() can be told to write none, and torch.load() ignores
/// them.
class ZipArchive {
 public:
  /// @param place what the archive is, for messages: a file's path
  /// @throws Error(kInvalidFile) if it is no zip archive, or cut off, or entries overlap or reach
  ///         out of it; Error(kUnsupported) if an entry is encrypted, or compressed in a way that
  ///         is not allowed
  /// Cost: proportional to the number of entries.
  ZipArchive(std::span<const std::byte> archive, std::string_view place,
             ZipCompression allowed = ZipCompression::kNone);

  /// Each entry by its name, which is a part of the archive.
  const std::map<std::string_view, ZipEntry>& entries() const { return entries_; }

 private:
  std::map<std::string_view, ZipEntry> entries_;
};

/// @returns the content of an entry
/// @throws Error(kInvalidFile) if it is broken, or over 100 times as large as what is stored
std::vector<std::byte> content_of(const ZipEntry& entry, std::string_view place);

}  // namespace c2r::torch
