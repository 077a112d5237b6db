// Tensors that grow side by side, in one temporary file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "c2r/io/file.h"

namespace c2r {

/// A nameless file: it is gone when it is closed, however the process ends.
class SpillFile {
 public:
  /// In the folder of `path`, a file to be written later, so that there is room for both or none.
  /// @throws Error(kInvalidFile) if it cannot be written to
  explicit SpillFile(const std::filesystem::path& path);
  SpillFile(const SpillFile&) = delete;
  SpillFile& operator=(const SpillFile&) = delete;
  ~SpillFile();

  /// Writes at the end. @returns where. @throws Error(kInvalidFile) on a full disk
  std::int64_t append(std::span<const std::byte> bytes);
  /// @throws Error(kInvalidFile)
  void read(std::int64_t offset, std::span<std::byte> bytes) const;

 private:
  int fd_ = -1;
  std::int64_t num_bytes_ = 0;
};

/// The bytes of one tensor: pieces of a spill file, and at last what is not written yet.
class SpilledTensor {
 public:
  /// Always to the same file. Cost: one write for each 64 KiB.
  void append(std::span<const std::byte> bytes, SpillFile& spill);
  void copy_to(AtomicFile& file, const SpillFile& spill) const;

 private:
  struct Piece {
    std::int64_t offset;
    std::size_t num_bytes;
  };
  std::vector<Piece> pieces_;
  std::vector<std::byte> buffer_;
};

}  // namespace c2r
