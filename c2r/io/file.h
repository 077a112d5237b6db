// Whole files: mapped or read into memory, and written so that a reader never sees half of one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace c2r {

/// Whether there is anything at `path`; links are followed.
/// @throws Error(kInvalidFile) if the system cannot tell: a name is too long, links lead in a
///         circle, or a folder may not be searched
bool path_exists(const std::filesystem::path& path);

/// A name beside `path` for what is made there before it gets its place: hidden, and another one at
/// each call. A process of the same number that was killed may have left something under it.
std::filesystem::path temporary_beside(const std::filesystem::path& path);

/// A file mapped read-only. The bytes stay valid, and the address fixed, while this object lives,
/// also after it was moved. If another process truncates the file meanwhile, reading past its new
/// end raises SIGBUS: replace files by renaming, as AtomicFile does.
class MappedFile {
 public:
  /// @throws Error(kInvalidFile) if it cannot be opened or is not a regular file
  explicit MappedFile(const std::filesystem::path& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::span<const std::byte> bytes_;
};

/// Reads a whole file, decompressing it if its name ends in `.xz`.
/// @throws Error(kInvalidFile) if it cannot be read, or its xz stream is broken or cut off
std::vector<std::byte> read_file(const std::filesystem::path& path);

/// As read_file(), as text. The file is in memory once, and mapped.
std::string read_text_file(const std::filesystem::path& path);

/// A file under construction, invisible at `path` until commit(). It is written beside its final
/// place, under a name that begins with a dot, and removed if it is destroyed uncommitted. Where
/// `path` is a link, the place is where it leads; a file that is there passes its mode on.
class AtomicFile {
 public:
  /// @throws Error(kInvalidFile) if the folder does not exist or cannot be written to
  explicit AtomicFile(const std::filesystem::path& path);
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile();

  /// @throws Error(kInvalidFile) if the disk is full or failing
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }

  /// What was written so far.
  std::int64_t num_bytes() const { return num_bytes_; }

  /// Flushes to the disk and renames to the final path, replacing what was there.
  /// @throws Error(kInvalidFile) if the system cannot
  void commit();

 private:
  std::filesystem::path path_, place_, temporary_;
  int fd_ = -1;
  std::int64_t num_bytes_ = 0;
};

/// Writes a whole text file through AtomicFile. @throws Error(kInvalidFile) as it does
void write_text_file(const std::filesystem::path& path, std::string_view text);

}  // namespace c2r
