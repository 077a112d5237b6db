// Reads the memory use of the process and of the machine from /proc.
#include "c2r/io/memory.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <fstream>
#include <string>
#include <string_view>

#include "c2r/io/file_descriptor_internal.h"

namespace c2r {
namespace {

// The number of bytes in a line "KEY:   123 kB" of a file in /proc.
std::optional<std::int64_t> read_kilobytes(const std::string& path, std::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    const std::size_t begin = std::min(line.find_first_of("0123456789"), line.size());
    std::int64_t value = 0;
    const auto end = line.data() + line.size();
    if (std::from_chars(line.data() + begin, end, value).ec == std::errc()) return value * 1024;
  }
  return std::nullopt;
}

}  // namespace

std::optional<std::int64_t> resident_bytes() {
  return read_kilobytes("/proc/self/status", "VmRSS:");
}

std::optional<std::int64_t> available_bytes() {
  return read_kilobytes("/proc/meminfo", "MemAvailable:");
}

// https://docs.kernel.org/admin-guide/mm/pagemap.html: 64 bits a page, the highest says whether it
// is in memory and mapped.
std::optional<std::int64_t> resident_bytes(std::span<const std::byte> memory) {
  if (memory.empty()) return 0;
  const FileDescriptor pagemap("/proc/self/pagemap");
  const auto page_bytes = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
  const std::uintptr_t end = (address + memory.size() - 1) / page_bytes + 1;
  std::int64_t num_resident = 0;
  std::array<std::uint64_t, 4096> entries;
  for (std::uintptr_t page = address / page_bytes; page < end;) {
    const std::size_t count = std::min<std::size_t>(entries.size(), end - page);
    const auto num_read = ::pread(pagemap.fd, entries.data(), count * sizeof(entries[0]),
                                  static_cast<off_t>(page * sizeof(entries[0])));
    if (num_read != static_cast<ssize_t>(count * sizeof(entries[0]))) return std::nullopt;
    num_resident += std::count_if(entries.begin(), entries.begin() + std::ptrdiff_t(count),
                                  [](std::uint64_t entry) { return (entry >> 63) == 1; });
    page += count;
  }
  return num_resident * static_cast<std::int64_t>(page_bytes);
}

}  // namespace c2r
