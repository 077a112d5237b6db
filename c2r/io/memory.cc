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

// The number in a file of a control group; nothing for "max", which is no limit.
std::optional<std::int64_t> read_number(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::int64_t number = 0;
  if (!(file >> number)) return std::nullopt;
  return number;
}

// What a group may still use: its limit less its use, without the cached files that the kernel can
// drop. @param names of the files of the limit, the use and the line of cached files in memory.stat
std::optional<std::int64_t> available_in_group(const std::filesystem::path& folder,
                                               const std::array<const char*, 3>& names) {
  const auto limit = read_number(folder / names[0]), used = read_number(folder / names[1]);
  if (!limit || !used) return std::nullopt;
  std::int64_t cached = 0;
  std::ifstream stat(folder / "memory.stat");
  for (std::string key, value; stat >> key >> value;) {
    if (key == names[2]) (void)std::from_chars(value.data(), value.data() + value.size(), cached);
  }
  return std::max<std::int64_t>(0, *limit - std::max<std::int64_t>(0, *used - cached));
}

// The group of this process in a hierarchy, and all groups around it: each may have a limit.
// https://docs.kernel.org/admin-guide/cgroup-v2.html, cgroup-v1/memory.html
std::optional<std::int64_t> available_in_groups(const std::filesystem::path& root) {
  std::optional<std::int64_t> least;
  std::ifstream groups(root / "proc/self/cgroup");  // lines "ID:CONTROLLERS:PATH"
  for (std::string line; std::getline(groups, line);) {
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const bool is_v2 = controllers == ",,";
    if (!is_v2 && controllers.find(",memory,") == std::string::npos) continue;
    const auto top = root / (is_v2 ? "sys/fs/cgroup" : "sys/fs/cgroup/memory");
    const std::array<const char*, 3> names =
        is_v2 ? std::array{"memory.max", "memory.current", "inactive_file"}
              : std::array{"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"};
    // In a container the path may be that of the host, of which only the top is seen.
    std::filesystem::path group = std::filesystem::path(line.substr(second + 1)).relative_path();
    for (bool is_top = false; !is_top; group = group.parent_path()) {
      is_top = group.empty();
      const auto available = available_in_group(top / group, names);
      if (available) least = std::min(least.value_or(INT64_MAX), *available);
    }
  }
  return least;
}

}  // namespace

std::optional<std::int64_t> resident_bytes() {
  return read_kilobytes("/proc/self/status", "VmRSS:");
}

std::optional<std::int64_t> available_bytes(const std::filesystem::path& root) {
  const auto machine = read_kilobytes((root / "proc/meminfo").string(), "MemAvailable:");
  const auto group = available_in_groups(root);
  if (!machine || !group) return machine ? machine : group;
  return std::min(*machine, *group);
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
