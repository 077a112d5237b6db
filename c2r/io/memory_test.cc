// Tests that the memory of this process and of mapped files is counted.
#include "c2r/io/memory.h"

#include <gtest/gtest.h>

#include <vector>

#include "c2r/core/testing.h"
#include "c2r/io/file.h"

namespace c2r {
namespace {

TEST(Memory, CountsTheTouchedPagesOfAMappedFile) {
  constexpr std::size_t kBytes = 32 << 20, kAround = 64 << 10;
  const auto path = testing::text_file("large", std::string(kBytes, 'x'));
  const MappedFile file(path);
  EXPECT_EQ(resident_bytes(file.bytes()), 0);
  const auto middle = file.bytes().subspan(kBytes / 4, kBytes / 2);
  std::size_t num_x = 0;
  for (const std::byte byte : middle) num_x += byte == std::byte{'x'} ? 1 : 0;
  EXPECT_EQ(num_x, middle.size());
  EXPECT_EQ(resident_bytes(middle), kBytes / 2);
  EXPECT_EQ(resident_bytes(file.bytes().first(kBytes / 4 - kAround)), 0);
  EXPECT_LE(resident_bytes(file.bytes()).value(), kBytes / 2 + 2 * kAround);
  EXPECT_EQ(resident_bytes({}), 0);
}

TEST(Memory, OfTheProcessGrowsWithWhatItUses) {
  const std::int64_t before = resident_bytes().value();
  EXPECT_GT(before, 0);
  const std::vector<char> used(32 << 20, 'x');
  EXPECT_GE(resident_bytes().value(), before + (31 << 20)) << used.back();
  EXPECT_GT(available_bytes().value(), 0);
}

// A root with MemAvailable of 1000 kB, whose process is in these groups.
std::filesystem::path machine_with(const char* groups) {
  const auto root = testing::path_in_empty_folder("root");
  std::filesystem::create_directories(root / "proc/self");
  write_text_file(root / "proc/meminfo", "MemTotal: 2000 kB\nMemAvailable:    1000 kB\n");
  write_text_file(root / "proc/self/cgroup", groups);
  return root;
}

void write_group(const std::filesystem::path& folder, bool is_v2, const char* limit,
                 const char* used, const char* stat) {
  std::filesystem::create_directories(folder);
  write_text_file(folder / (is_v2 ? "memory.max" : "memory.limit_in_bytes"), limit);
  write_text_file(folder / (is_v2 ? "memory.current" : "memory.usage_in_bytes"), used);
  write_text_file(folder / "memory.stat", stat);
}

TEST(Memory, AvailableIsNoMoreThanTheGroupsOfTheProcessAllow) {
  const auto root = machine_with("0::/batch/job\n");
  EXPECT_EQ(available_bytes(root), 1000 * 1024);
  const auto top = root / "sys/fs/cgroup";
  write_group(top / "batch/job", true, "max\n", "100\n", "");
  EXPECT_EQ(available_bytes(root), 1000 * 1024);
  write_group(top / "batch/job", true, "500000\n", "300000\n", "anon 5\ninactive_file 40000\n");
  EXPECT_EQ(available_bytes(root), 240000);
  write_group(top / "batch", true, "400000\n", "390000\n", "");  // of all jobs
  EXPECT_EQ(available_bytes(root), 10000);
  write_group(top / "batch", true, "400000\n", "500000\n", "");
  EXPECT_EQ(available_bytes(root), 0);
}

// In a container of version 1 the path is the host's, and the group is mounted at the top.
TEST(Memory, AvailableHonoursGroupsOfVersion1) {
  const auto root = machine_with("4:cpu,cpuacct:/x\n3:memory:/docker/123\n0::/\n");
  const auto top = root / "sys/fs/cgroup/memory";
  write_group(top, false, "9223372036854771712\n", "5\n", "");
  EXPECT_EQ(available_bytes(root), 1000 * 1024);
  write_group(top, false, "700000\n", "200000\n", "total_inactive_file 100000\n");
  EXPECT_EQ(available_bytes(root), 600000);
}

}  // namespace
}  // namespace c2r
