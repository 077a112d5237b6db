// Tests which bytes are UTF-8 characters, and what replaces the others.
#include "c2r/core/utf8.h"

#include <gtest/gtest.h>

#include <random>

#include "c2r/core/testing.h"

namespace c2r {
namespace {

// The character's number, or -1 if `bytes` is not exactly one character: the definition of UTF-8.
std::int64_t code_point(std::string_view bytes) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
  static constexpr std::int64_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  static constexpr unsigned kLead[] = {0, 0, 0xC0, 0xE0, 0xF0};
  const std::size_t n = bytes.size();
  if (n == 1) return byte(0) < 0x80 ? byte(0) : -1;
  if (n < 2 || n > 4) return -1;
  const unsigned payload = 0xFFu >> (n + 1);
  if ((byte(0) & ~payload) != kLead[n]) return -1;
  std::int64_t value = byte(0) & payload;
  for (std::size_t i = 1; i < n; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return -1;
    value = value << 6 | (byte(i) & 0x3F);
  }
  const bool is_surrogate = 0xD800 <= value && value <= 0xDFFF;
  return value < kLeast[n] || value > 0x10FFFF || is_surrogate ? -1 : value;
}

TEST(Utf8, AcceptsExactlyTheCharacters) {
  // All strings of up to 3 bytes, and 4 bytes with every first, second and some later ones.
  for (unsigned a = 0; a < 256; ++a) {
    for (unsigned b = 0; b < 256; ++b) {
      for (const unsigned c : {0x00u, 0x7Fu, 0x80u, 0xBFu, 0xC0u, 0xFFu}) {
        for (const unsigned d : {0x7Fu, 0x80u, 0xBFu, 0xC0u}) {
          const char bytes[] = {char(a), char(b), char(c), char(d)};
          for (std::size_t n = 1; n <= 4; ++n) {
            const std::string_view text(bytes, n);
            const Utf8Unit unit = first_utf8_unit(text);
            const bool is_one = unit.kind == Utf8Kind::kCharacter && unit.num_bytes == n;
            ASSERT_EQ(is_one, code_point(text) >= 0) << a << " " << b << " " << c << " " << d;
          }
        }
      }
    }
  }
}

// The examples of the Unicode standard, section 3.9, tables 3-8 to 3-11.
TEST(Utf8, ReplacesWhatTheStandardReplaces) {
  const std::string r(kReplacementCharacter);
  EXPECT_EQ(replace_broken_utf8("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"),
            r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(replace_broken_utf8("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41"),
            r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(replace_broken_utf8("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42"),
            r + r + r + r + r + "A" + r + r + "B");
  EXPECT_EQ(replace_broken_utf8("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"), r + r + r + r + "A");
  EXPECT_EQ(replace_broken_utf8("caf\xC3"), "caf" + r);  // cut off
  EXPECT_EQ(replace_broken_utf8(""), "");
}

TEST(Utf8, AnEmptyTextHasNoFirstCharacter) {
  EXPECT_EQ(testing::error_of([] { (void)first_utf8_unit(""); }),
            "an empty text has no first character");
}

TEST(Utf8, IsValidWhereNothingIsReplaced) {
  std::mt19937 rng(1);
  for (int round = 0; round < 2000; ++round) {
    std::string text(rng() % 20, 'a');
    for (char& c : text) c = static_cast<char>(rng() % 3 == 0 ? rng() % 256 : 'a');
    const std::string replaced = replace_broken_utf8(text);
    EXPECT_EQ(is_valid_utf8(text), replaced == text);
    EXPECT_TRUE(is_valid_utf8(replaced));
  }
  EXPECT_TRUE(is_valid_utf8("naïve 中文 🙂"));
}

}  // namespace
}  // namespace c2r
