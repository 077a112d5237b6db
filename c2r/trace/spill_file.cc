// The temporary file behind TraceWriter, and the tensors in it.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string>

#include "c2r/core/error.h"
#include "c2r/trace/spill_file_internal.h"

namespace c2r {
namespace {

constexpr std::size_t kBufferBytes = 1 << 16;

}  // namespace

SpillFile::SpillFile(const std::filesystem::path& path) {
  const std::string folder = path.has_parent_path() ? path.parent_path().string() : ".";
  std::string name = folder + "/.c2r.XXXXXX";  // not O_TMPFILE, which network file systems lack
  fd_ = ::mkostemp(name.data(), O_CLOEXEC);
  C2R_REQUIRE(fd_ >= 0, kInvalidFile, "cannot write a temporary file in '{}': {}", folder,
              last_system_error());
  ::unlink(name.c_str());
}

SpillFile::~SpillFile() {
  if (fd_ >= 0) ::close(fd_);
}

std::int64_t SpillFile::append(std::span<const std::byte> bytes) {
  const std::int64_t offset = num_bytes_;
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(fd_, bytes.data(), bytes.size(), num_bytes_);
    if (written < 0 && errno == EINTR) continue;
    C2R_REQUIRE(written > 0, kInvalidFile, "cannot write a temporary file: {}",
                last_system_error());
    num_bytes_ += written;
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  return offset;
}

void SpillFile::read(std::int64_t offset, std::span<std::byte> bytes) const {
  while (!bytes.empty()) {
    const ssize_t got = ::pread(fd_, bytes.data(), bytes.size(), offset);
    if (got < 0 && errno == EINTR) continue;
    C2R_REQUIRE(got > 0, kInvalidFile, "cannot reread a temporary file: {}",
                got == 0 ? "it has become shorter" : last_system_error());
    offset += got;
    bytes = bytes.subspan(static_cast<std::size_t>(got));
  }
}

void SpilledTensor::append(std::span<const std::byte> bytes, SpillFile& spill) {
  buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
  if (buffer_.size() < kBufferBytes) return;
  blocks_.push_back({spill.append(buffer_), buffer_.size()});
  buffer_.clear();
}

void SpilledTensor::copy_to(AtomicFile& file, const SpillFile& spill) const {
  std::vector<std::byte> block;
  for (const auto& [offset, num_bytes] : blocks_) {
    block.resize(num_bytes);
    spill.read(offset, block);
    file.write(block);
  }
  file.write(buffer_);
}

}  // namespace c2r
