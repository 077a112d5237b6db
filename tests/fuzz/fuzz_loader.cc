// A libFuzzer program for the loader that its last argument names, after -ignore_remaining_args=1:
// whatever the file holds, nothing but c2r::Error may escape, with a message of one short line, and
// no sanitizer may complain. `fuzz_loader list` prints the names of all loaders.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "tests/loaders.h"

namespace {

// A file in memory, with a path as loaders want it.
class MemoryFile {
 public:
  explicit MemoryFile(std::span<const std::uint8_t> bytes) : fd_(::memfd_create("fuzz", 0)) {
    if (fd_ < 0 || ::write(fd_, bytes.data(), bytes.size()) != std::ssize(bytes)) std::abort();
  }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  ~MemoryFile() { ::close(fd_); }

  std::filesystem::path path() const { return fmt::format("/proc/self/fd/{}", fd_); }

 private:
  int fd_;
};

std::filesystem::path output_path() {
  return std::filesystem::temp_directory_path() / fmt::format("fuzz.{}", ::getpid());
}

bool is_one_short_line(std::string_view message) {
  if (message.empty() || message.size() > 500) return false;
  for (const char c : message) {
    if (c < 0x20 || c >= 0x7f) return false;
  }
  return true;
}

std::string loader;

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  loader = (*argv)[*argc - 1];
  if (loader != "list") return 0;
  for (const std::string& name : c2r::testing::loader_names()) std::puts(name.c_str());
  std::exit(0);
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::filesystem::path output = output_path();
  std::filesystem::remove(output);
  const MemoryFile file({data, size});
  try {
    c2r::testing::load(loader, file.path(), output);
  } catch (const c2r::Error& e) {
    if (!is_one_short_line(e.what())) std::abort();
    if (std::filesystem::exists(output)) std::abort();  // a failed import leaves nothing
  }
  return 0;
}
