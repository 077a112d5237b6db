// Encodes base64 group after group, and decodes it digit after digit.
#include "c2r/io/base64.h"

#include <algorithm>
#include <array>
#include <cstdint>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"

namespace c2r {
namespace {

constexpr std::string_view kBase64Digits =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

// [256]: the value of each character as a digit, or -1.
constexpr auto kDigitValues = [] {
  std::array<int, 256> values{};
  values.fill(-1);
  for (std::size_t v = 0; v < kBase64Digits.size(); ++v) {
    values[static_cast<unsigned char>(kBase64Digits[v])] = static_cast<int>(v);
  }
  return values;
}();

constexpr std::size_t kDigitsOfBlock = 4 << 16;
static_assert(kDigitsOfBlock / 4 * 3 % 24 == 0);

// The digits without their padding.
std::string_view unpadded(std::string_view text, std::string_view place) {
  C2R_REQUIRE(text.size() % 4 == 0, kInvalidFile,
              "{}: has {} base64 digits, which is not a multiple of 4", place, text.size());
  for (int padding = 0; padding < 2 && text.ends_with('='); ++padding) text.remove_suffix(1);
  return text;
}

// Appends the bytes of the digits from `begin` to `end`, where `begin` starts a group of four.
void append_bytes(std::string_view text, std::size_t begin, std::size_t end, std::string_view place,
                  std::vector<std::byte>& bytes) {
  std::uint32_t bits = 0;
  for (std::size_t i = begin; i < end; ++i) {
    const int value = kDigitValues[static_cast<unsigned char>(text[i])];
    C2R_REQUIRE(value >= 0, kInvalidFile, "{}: '{}' at {} is not a base64 digit", place,
                shown(text.substr(i, 1)), i);
    bits = bits << 6 | static_cast<std::uint32_t>(value);
    // After the digits 2, 3 and 4 of a group, 4, 2 and 0 bits are left over.
    if (i % 4 != 0) bytes.push_back(static_cast<std::byte>(bits >> (6 - 2 * (i % 4)) & 0xff));
  }
}

}  // namespace

std::string encode_base64(std::span<const std::byte> bytes) {
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t at = 0; at < bytes.size(); at += 3) {
    const std::size_t count = std::min<std::size_t>(3, bytes.size() - at);
    std::uint32_t group = 0;
    for (std::size_t b = 0; b < 3; ++b) {
      group = group << 8 | (b < count ? std::to_integer<std::uint32_t>(bytes[at + b]) : 0U);
    }
    for (std::size_t digit = 0; digit < 4; ++digit) {
      text += digit <= count ? kBase64Digits[group >> (18 - 6 * digit) & 63] : '=';
    }
  }
  return text;
}

std::vector<std::byte> decode_base64(std::string_view text, std::string_view place) {
  text = unpadded(text, place);
  std::vector<std::byte> bytes;
  bytes.reserve(text.size() / 4 * 3 + 2);
  append_bytes(text, 0, text.size(), place, bytes);
  return bytes;
}

void decode_base64_blocks(std::string_view text, std::string_view place,
                          const std::function<void(std::span<const std::byte>)>& block) {
  text = unpadded(text, place);
  std::vector<std::byte> bytes;
  bytes.reserve(kDigitsOfBlock / 4 * 3);
  for (std::size_t begin = 0; begin < text.size(); begin += kDigitsOfBlock) {
    bytes.clear();
    append_bytes(text, begin, std::min(begin + kDigitsOfBlock, text.size()), place, bytes);
    block(bytes);
  }
}

}  // namespace c2r
