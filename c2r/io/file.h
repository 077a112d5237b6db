// Whole files: mapped, read into memory, or written so that no reader sees a half-written file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace c2r {

/// @returns whether a file or folder exists at `path`; links are followed
/// @throws Error(kInvalidFile) if the system cannot tell: a name is too long, links lead in a
///         circle, or a folder may not be searched
bool path_exists(const std::filesystem::path& path);

/// What a file or folder is, whatever path leads to it: its device, and its number there.
using FileIdentity = std::pair<std::uint64_t, std::uint64_t>;

/// @returns the identity of what is at `path`, where links are followed; nothing if that cannot be
///          looked up
std::optional<FileIdentity> file_identity(const std::filesystem::path& path);

/// @returns the name of a hidden temporary file in the folder of `path`, another one at each call.
///          A killed process with the same process id may have left a file of that name.
std::filesystem::path temporary_file_path(const std::filesystem::path& path);

/// A file mapped read-only. The bytes stay valid, and the address fixed, while this object lives,
/// also after it was moved. If another process truncates the file in the meantime, reading past the
/// new end raises SIGBUS; therefore replace files by renaming, as AtomicFile does.
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

/// @returns the path without the ending `.xz`, `.gz` or `.zst`, if it has one: what read_file()
///          decompresses
std::filesystem::path without_compression(const std::filesystem::path& path);

/// Reads a whole file, decompressing it if its name ends in `.xz`, `.gz` or `.zst`.
/// @throws Error(kInvalidFile) if it cannot be read, or what was compressed is broken or cut off
std::vector<std::byte> read_file(const std::filesystem::path& path);

/// As read_file(), as text. The text is in memory once; the file is also mapped during the call.
std::string read_text_file(const std::filesystem::path& path);

/// A file that appears at `path` only with commit(). Until then it is written to a temporary file
/// in the same folder, which the destructor removes if commit() was not called. If `path` is a
/// link, the file that it leads to is replaced. A file that is replaced passes on its mode.
class AtomicFile {
 public:
  /// @throws Error(kInvalidFile) if the folder does not exist or cannot be written to
  explicit AtomicFile(const std::filesystem::path& path);
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile();

  /// @throws Error(kInvalidFile) if the disk is full or failing, Error(kInvalidArgument) after
  ///         commit()
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }

  /// @returns the bytes written so far
  std::int64_t num_bytes() const { return num_bytes_; }

  /// Flushes to the disk and renames to the final path, replacing what was there.
  /// @throws as write()
  void commit();

 private:
  void check_open() const;

  std::filesystem::path path_, place_, temporary_;
  int fd_ = -1;
  std::int64_t num_bytes_ = 0;
};

/// Writes a whole text file through AtomicFile.
/// @throws as AtomicFile
void write_text_file(const std::filesystem::path& path, std::string_view text);

}  // namespace c2r
