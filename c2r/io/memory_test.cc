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

}  // namespace
}  // namespace c2r
