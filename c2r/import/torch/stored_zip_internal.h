// Reader of zip archives whose entries are stored without compression, as torch.save() writes them.
// https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string_view>

namespace c2r::torch {

/// The entries of an archive in memory, which is usually a mapped file and outlives this object. An
/// entry is a part of the archive: nothing is copied, and nothing is read but the directory and the
/// headers.
///
/// Checksums are not compared: torch.save() can be told to write none, and torch.load() ignores
/// them.
class StoredZip {
 public:
  /// @param place what the archive is, for messages: a file's path
  /// @throws Error(kInvalidFile) if it is no zip archive, or cut off, or entries overlap or reach
  ///         out of it; Error(kUnsupported) if an entry is compressed or encrypted
  /// Cost: proportional to the number of entries.
  StoredZip(std::span<const std::byte> archive, std::string_view place);

  /// The bytes of each entry by its name, both parts of the archive.
  const std::map<std::string_view, std::span<const std::byte>>& entries() const { return entries_; }

 private:
  std::map<std::string_view, std::span<const std::byte>> entries_;
};

}  // namespace c2r::torch
