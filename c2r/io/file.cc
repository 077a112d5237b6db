// Whole files by the system calls of Linux: mmap to read, a temporary file and rename to write.
#include "c2r/io/file.h"

#include <fcntl.h>
#include <lzma.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <climits>
#include <mutex>
#include <set>
#include <utility>

#include "c2r/core/error.h"
#include "c2r/io/file_descriptor_internal.h"
#include "c2r/io/memory.h"
#include "c2r/io/temporaries.h"

namespace c2r {
namespace {

// `xz -9` needs 65 MiB. Without a limit, liblzma allocates whatever dictionary a file claims.
constexpr std::uint64_t kMaxXzMemoryBytes = 256 << 20;

// A file of a few megabytes could fill the memory otherwise. Our traces shrink by up to 20 times.
constexpr std::int64_t kXzFreeBytes = 64 << 20, kMaxXzRatio = 100;

std::string_view xz_problem(lzma_ret status) {
  switch (status) {
    case LZMA_FORMAT_ERROR:
      return "it does not begin like one";
    case LZMA_BUF_ERROR:
      return "it is cut off";
    case LZMA_MEMLIMIT_ERROR:
      return "its dictionary needs more than 256 MiB";
    default:
      return "it is corrupt";
  }
}

// The decoder's own checks find truncation and corruption. @tparam Bytes a vector or a string
template <class Bytes>
Bytes decompress_xz(std::span<const std::byte> compressed, const std::filesystem::path& path) {
  lzma_stream stream = LZMA_STREAM_INIT;
  C2R_REQUIRE(lzma_stream_decoder(&stream, kMaxXzMemoryBytes, LZMA_CONCATENATED) == LZMA_OK,
              kUnsupported, "{}: liblzma cannot start a decoder", path.string());
  struct End {
    lzma_stream* stream;
    ~End() { lzma_end(stream); }
  } const end{&stream};

  // While the output grows, its old and its new memory exist together.
  const std::int64_t most_memory = available_bytes().value_or(INT64_MAX) / 3;
  const std::int64_t most_ratio = kXzFreeBytes + kMaxXzRatio * std::ssize(compressed);
  const std::int64_t most = std::min(most_memory, most_ratio);
  Bytes out;
  Bytes chunk(1 << 20, {});
  stream.next_in = reinterpret_cast<const std::uint8_t*>(compressed.data());
  stream.avail_in = compressed.size();
  for (;;) {
    stream.next_out = reinterpret_cast<std::uint8_t*>(chunk.data());
    stream.avail_out = chunk.size();
    const lzma_ret status = lzma_code(&stream, LZMA_FINISH);
    const auto produced = static_cast<std::ptrdiff_t>(chunk.size() - stream.avail_out);
    C2R_REQUIRE(std::ssize(out) + produced <= most, kInvalidFile, "{}: holds more than {} MB, {}",
                path.string(), most / 1'000'000,
                most_ratio < most_memory
                    ? "over 100 times its size; decompress it yourself if that is right"
                    : "for which the memory that is free does not suffice");
    out.insert(out.end(), chunk.begin(), chunk.begin() + produced);
    if (status == LZMA_STREAM_END) return out;
    C2R_REQUIRE(status == LZMA_OK, kInvalidFile, "{}: not a complete xz file: {}", path.string(),
                xz_problem(status));
  }
}

struct Temporaries {
  std::mutex mutex;
  std::set<std::filesystem::path> paths;
};

Temporaries& temporaries() {
  static Temporaries& all = *new Temporaries;  // never destroyed: threads may outlive statics
  return all;
}

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

}  // namespace

bool path_exists(const std::filesystem::path& path) {
  std::error_code error;
  const bool exists = std::filesystem::exists(path, error);
  C2R_REQUIRE(!error, kInvalidFile, "cannot look up '{}': {}", path.string(), error.message());
  return exists;
}

std::filesystem::path temporary_beside(const std::filesystem::path& path) {
  static std::atomic<int> count = 0;  // two threads may write one path; the last rename wins
  const std::string end = fmt::format(".{}.{}.tmp", ::getpid(), ++count);
  return path.parent_path() /
         fmt::format(".{}{}", path.filename().string().substr(0, NAME_MAX - 1 - end.size()), end);
}

void add_temporary(const std::filesystem::path& path, const std::function<void()>& make) {
  Temporaries& all = temporaries();
  const std::lock_guard lock(all.mutex);
  all.paths.insert(path);
  make();
}

void forget_temporary(const std::filesystem::path& path) {
  Temporaries& all = temporaries();
  const std::lock_guard lock(all.mutex);
  all.paths.erase(path);
}

void remove_temporaries() noexcept {
  Temporaries& all = temporaries();
  const std::lock_guard lock(all.mutex);
  constexpr int kAttempts = 100;  // another thread may add a file while its folder is emptied
  for (const auto& path : all.paths) {
    std::error_code ignored;  // nobody is left to tell
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
      std::filesystem::remove_all(path, ignored);
      if (!std::filesystem::exists(path, ignored)) break;
    }
  }
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

std::vector<std::byte> read_file(const std::filesystem::path& path) {
  const MappedFile file(path);
  if (path.extension() == ".xz") return decompress_xz<std::vector<std::byte>>(file.bytes(), path);
  return {file.bytes().begin(), file.bytes().end()};
}

std::string read_text_file(const std::filesystem::path& path) {
  const MappedFile file(path);
  if (path.extension() == ".xz") return decompress_xz<std::string>(file.bytes(), path);
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

AtomicFile::AtomicFile(const std::filesystem::path& path) : path_(path), place_(followed(path)) {
  struct stat status {};
  const bool exists = ::stat(path.c_str(), &status) == 0;
  C2R_REQUIRE(!exists || S_ISREG(status.st_mode), kInvalidFile,
              "cannot write '{}': it is there and not a regular file", path.string());
  for (;;) {
    temporary_ = temporary_beside(place_);
    add_temporary(temporary_, [&] {
      fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    });
    if (fd_ >= 0) break;
    const bool is_taken = errno == EEXIST;
    const std::string problem = last_system_error();
    forget_temporary(temporary_);
    C2R_REQUIRE(is_taken, kInvalidFile, "cannot write '{}': {}", path.string(), problem);
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
