// Decodes base85, group after group.
#include <array>
#include <cstdint>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"
#include "c2r/import/responses/base85_internal.h"

namespace c2r {
namespace {

constexpr std::string_view kBase85Digits =
    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~";
constexpr std::uint8_t kNoDigit = 255;

constexpr std::array<std::uint8_t, 256> values_of_digits() {
  std::array<std::uint8_t, 256> values{};
  values.fill(kNoDigit);
  for (std::size_t i = 0; i < kBase85Digits.size(); ++i) {
    values[static_cast<unsigned char>(kBase85Digits[i])] = static_cast<std::uint8_t>(i);
  }
  return values;
}

constexpr auto kBase85Values = values_of_digits();

}  // namespace

std::vector<std::byte> decode_base85(std::string_view text, std::string_view place) {
  constexpr std::size_t kGroup = 5;
  C2R_REQUIRE(text.size() % kGroup != 1, kInvalidFile,
              "{}: has {} base85 digits, of which the last is alone in its group of 5", place,
              text.size());
  std::vector<std::byte> bytes;
  bytes.reserve(text.size() / kGroup * 4 + 4);
  for (std::size_t begin = 0; begin < text.size(); begin += kGroup) {
    const std::string_view group = text.substr(begin, kGroup);
    std::uint64_t number = 0;
    for (std::size_t i = 0; i < kGroup; ++i) {
      // A short group is filled up with the largest digit.
      const std::uint8_t value =
          i < group.size() ? kBase85Values[static_cast<unsigned char>(group[i])] : 84;
      C2R_REQUIRE(value != kNoDigit, kInvalidFile, "{}: '{}' at {} is not a base85 digit", place,
                  shown(group.substr(i, 1)), begin + i);
      number = number * 85 + value;
    }
    C2R_REQUIRE(number <= UINT32_MAX, kInvalidFile,
                "{}: the base85 digits '{}' at {} are more than 4 bytes", place, shown(group),
                begin);
    for (std::size_t i = 0; i + 1 < group.size(); ++i) {
      bytes.push_back(static_cast<std::byte>(number >> (24 - 8 * i) & 0xff));
    }
  }
  return bytes;
}

}  // namespace c2r
