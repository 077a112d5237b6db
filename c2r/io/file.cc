// Whole files by the system calls of Linux: mmap to read, a temporary file and rename to write.
#include "c2r/io/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <climits>
#include <utility>

#include "c2r/core/error.h"
#include "c2r/io/decompress_internal.h"
#include "c2r/io/file_descriptor_internal.h"
#include "c2r/io/memory.h"
#include "c2r/io/temporaries.h"

namespace c2r {
namespace {

// The path that a file written to `path` gets: the target of the links, whether or not it exists.
std::filesystem::path followed(const std::filesystem::path& path) {
  constexpr int kMaxLinks = 40;  // as Linux
  std::filesystem::path place = path;
  std::error_code error;
  for (int link = 0; link < kMaxLinks; ++link) {
    const auto target = std::filesystem::read_symlink(place, error);
    if (error) return place;  // no link
    place = place.parent_path() / target;
  }
  C2R_THROW(kInvalidFile, "cannot write '{}': too many levels of symbolic links", path.string());
}

constexpr std::int64_t kSmallBytes = 1 << 20;  // read without looking at the free memory

// @tparam Bytes a vector of bytes or a string
template <class Bytes>
Bytes read_as(const std::filesystem::path& path) {
  const MappedFile file(path);
  Bytes bytes;
  const auto append = [&](std::span<const std::byte> part) {
    const auto* const begin = reinterpret_cast<const typename Bytes::value_type*>(part.data());
    bytes.insert(bytes.end(), begin, begin + part.size());
  };
  if (is_compressed(path)) {
    decompress(file.bytes(), path, append);
  } else {
    const std::int64_t size = std::ssize(file.bytes());
    C2R_REQUIRE(size < kSmallBytes || size <= available_bytes().value_or(INT64_MAX), kInvalidFile,
                "{}: has {} MB, for which the memory that is free does not suffice", path.string(),
                size / 1'000'000);
    append(file.bytes());
  }
  return bytes;
}

// Makes the file `temporary` and locks it. @returns its descriptor, or -1 if another name has to be
// tried
// @param path that the caller asked for, for messages
int open_temporary(const std::filesystem::path& path, const std::filesystem::path& temporary) {
  int fd = -1;
  add_temporary(temporary, [&] {
    fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  });
  if (fd >= 0 && lock_temporary(fd)) return fd;
  const bool may_try_again = fd >= 0 || errno == EEXIST;
  const std::string problem = last_system_error();
  if (fd >= 0) ::close(fd);
  forget_temporary(temporary);
  C2R_REQUIRE(may_try_again, kInvalidFile, "cannot write '{}': {}", path.string(), problem);
  return -1;
}

}  // namespace

bool path_exists(const std::filesystem::path& path) {
  std::error_code error;
  const bool exists = std::filesystem::exists(path, error);
  C2R_REQUIRE(!error, kInvalidFile, "cannot look up '{}': {}", path.string(), error.message());
  return exists;
}

std::optional<FileIdentity> file_identity(const std::filesystem::path& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return std::nullopt;
  return FileIdentity{status.st_dev, status.st_ino};
}

std::filesystem::path temporary_file_path(const std::filesystem::path& path) {
  static std::atomic<int> count = 0;  // two threads may write one path; the last rename wins
  const std::string end = fmt::format(".{}.{}.tmp", ::getpid(), ++count);
  return path.parent_path() /
         fmt::format(".{}{}", path.filename().string().substr(0, NAME_MAX - 1 - end.size()), end);
}

MappedFile::MappedFile(const std::filesystem::path& path) {
  const FileDescriptor file(path.c_str());
  C2R_REQUIRE(file.fd >= 0, kInvalidFile, "cannot open '{}': {}", path.string(),
              last_system_error());
  struct stat status {};
  C2R_REQUIRE(::fstat(file.fd, &status) == 0, kInvalidFile, "cannot read '{}': {}", path.string(),
              last_system_error());
  C2R_REQUIRE(S_ISREG(status.st_mode), kInvalidFile, "'{}' is not a regular file", path.string());
  if (status.st_size == 0) return;  // mmap refuses an empty range
  const auto size = static_cast<std::size_t>(status.st_size);
  void* const address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.fd, 0);
  C2R_REQUIRE(address != MAP_FAILED, kInvalidFile, "cannot map '{}': {}", path.string(),
              last_system_error());
  bytes_ = {static_cast<const std::byte*>(address), size};
}

MappedFile::MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  return *this;
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

std::filesystem::path without_compression(const std::filesystem::path& path) {
  return is_compressed(path) ? path.parent_path() / path.stem() : path;
}

std::vector<std::byte> read_file(const std::filesystem::path& path) {
  return read_as<std::vector<std::byte>>(path);
}

std::string read_text_file(const std::filesystem::path& path) {
  return read_as<std::string>(path);
}

AtomicFile::AtomicFile(const std::filesystem::path& path) : path_(path), place_(followed(path)) {
  struct stat status {};
  const bool exists = ::stat(path.c_str(), &status) == 0;
  // The temporary name may be shorter, so that only the rename at the end would notice.
  C2R_REQUIRE(exists || errno != ENAMETOOLONG, kInvalidFile, "cannot write '{}': {}", path.string(),
              last_system_error());
  C2R_REQUIRE(!exists || S_ISREG(status.st_mode), kInvalidFile,
              "cannot write '{}': it is there and not a regular file", path.string());
  remove_leftovers(place_);
  while (fd_ < 0) {
    temporary_ = temporary_file_path(place_);
    fd_ = open_temporary(path_, temporary_);
  }
  if (exists) (void)::fchmod(fd_, status.st_mode & 0777);  // a file system may have no modes
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
  forget_temporary(temporary_);
}

void AtomicFile::check_open() const {
  C2R_REQUIRE(fd_ >= 0, kInvalidArgument, "'{}' was committed already", path_.string());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  check_open();
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    C2R_REQUIRE(written >= 0 || errno != EFAULT, kInvalidFile,
                "cannot write '{}': a mapped file that it is made from has become shorter, or its "
                "disk has failed",
                path_.string());
    C2R_REQUIRE(written > 0, kInvalidFile, "cannot write '{}': {}", path_.string(),
                last_system_error());
    bytes = bytes.subspan(static_cast<std::size_t>(written));
    num_bytes_ += written;
  }
}

void AtomicFile::commit() {
  check_open();
  C2R_REQUIRE(::fsync(fd_) == 0 && ::rename(temporary_.c_str(), place_.c_str()) == 0, kInvalidFile,
              "cannot write '{}': {}", path_.string(), last_system_error());
  ::close(std::exchange(fd_, -1));
  forget_temporary(temporary_);
}

void write_text_file(const std::filesystem::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

}  // namespace c2r
