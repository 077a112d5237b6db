// Temporary storage on disk for several tensors that grow at the same time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "c2r/io/file.h"

namespace c2r {

/// A temporary file without a name, which the system deletes when the process ends, however it
/// ends.
class SpillFile {
 public:
  /// Opens it in the folder of `path`, the file that the tensors are written to later, so that both
  /// need the space of the same disk.
  /// @throws Error(kInvalidFile) if it cannot be written to
  explicit SpillFile(const std::filesystem::path& path);
  SpillFile(const SpillFile&) = delete;
  SpillFile& operator=(const SpillFile&) = delete;
  ~SpillFile();

  /// Writes `bytes` at the end.
  /// @returns their offset in the file
  /// @throws Error(kInvalidFile) on a full disk
  std::int64_t append(std::span<const std::byte> bytes);
  /// Reads the bytes at `offset` back.
  /// @throws Error(kInvalidFile) if the system cannot read them
  void read(std::int64_t offset, std::span<std::byte> bytes) const;

 private:
  int fd_ = -1;
  std::int64_t num_bytes_ = 0;
};

/// The bytes of one tensor: blocks of a spill file, in order, and then the bytes that are still in
/// memory.
class SpilledTensor {
 public:
  /// Appends `bytes`. All calls must name the same `spill`.
  ///
  /// Cost: one write for each 64 KiB.
  void append(std::span<const std::byte> bytes, SpillFile& spill);
  /// Writes all bytes to `file`, in order.
  void copy_to(AtomicFile& file, const SpillFile& spill) const;

 private:
  struct Block {
    std::int64_t offset;
    std::size_t num_bytes;
  };
  std::vector<Block> blocks_;      // in `spill`
  std::vector<std::byte> buffer_;  // not written yet
};

}  // namespace c2r
