// Decodes base64, digit after digit.
#include <cstdint>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"
#include "c2r/import/base64_internal.h"

namespace c2r {
namespace {

// The value of a base64 digit, or -1.
int digit_value(char c) {
  if ('A' <= c && c <= 'Z') return c - 'A';
  if ('a' <= c && c <= 'z') return c - 'a' + 26;
  if ('0' <= c && c <= '9') return c - '0' + 52;
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

}  // namespace

std::vector<std::byte> decode_base64(std::string_view text, std::string_view place) {
  C2R_REQUIRE(text.size() % 4 == 0, kInvalidFile,
              "{}: has {} base64 digits, which is not a multiple of 4", place, text.size());
  std::size_t num_padding = 0;
  while (num_padding < 2 && text.ends_with('=')) {
    text.remove_suffix(1);
    ++num_padding;
  }
  std::vector<std::byte> bytes;
  bytes.reserve(text.size() / 4 * 3 + 2);
  std::uint32_t bits = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const int value = digit_value(text[i]);
    C2R_REQUIRE(value >= 0, kInvalidFile, "{}: '{}' at {} is not a base64 digit", place,
                shown(text.substr(i, 1)), i);
    bits = bits << 6 | static_cast<std::uint32_t>(value);
    // After the digits 2, 3 and 4 of a group, 4, 2 and 0 bits are left over.
    if (i % 4 != 0) bytes.push_back(static_cast<std::byte>(bits >> (6 - 2 * (i % 4)) & 0xff));
  }
  return bytes;
}

}  // namespace c2r
