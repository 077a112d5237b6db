// Decodes UTF-8 by the table of valid byte sequences in the Unicode standard.
#include "c2r/core/utf8.h"

#include <cstdint>
#include <cstring>

#include "c2r/core/error.h"

namespace c2r {
namespace {

// What a lead byte says about its character: the number of bytes, and the range of the second byte
// (Unicode 16, table 3-7). Later bytes are in [0x80, 0xBF].
struct Lead {
  std::size_t num_bytes = 0;  // 0: the byte is no lead byte
  unsigned char second_min = 0x80, second_max = 0xBF;
};

constexpr Lead lead_of(unsigned char byte) {
  if (byte < 0x80) return {.num_bytes = 1};
  if (byte < 0xC2) return {};  // a continuation byte, or the lead byte of an overlong form
  if (byte < 0xE0) return {.num_bytes = 2};
  if (byte == 0xE0) return {.num_bytes = 3, .second_min = 0xA0};  // below: overlong
  if (byte == 0xED) return {.num_bytes = 3, .second_max = 0x9F};  // above: surrogates
  if (byte < 0xF0) return {.num_bytes = 3};
  if (byte == 0xF0) return {.num_bytes = 4, .second_min = 0x90};
  if (byte < 0xF4) return {.num_bytes = 4};
  if (byte == 0xF4) return {.num_bytes = 4, .second_max = 0x8F};  // above: beyond U+10FFFF
  return {};
}

// The number of ASCII characters at the begin of `text`, rounded down to a multiple of 8.
std::size_t ascii_words(std::string_view text) {
  std::size_t at = 0;
  for (std::uint64_t word = 0; at + sizeof(word) <= text.size(); at += sizeof(word)) {
    std::memcpy(&word, text.data() + at, sizeof(word));
    if ((word & 0x8080808080808080u) != 0) break;
  }
  return at;
}

}  // namespace

Utf8Unit first_utf8_unit(std::string_view text) {
  C2R_REQUIRE(!text.empty(), kInvalidArgument, "an empty text has no first character");
  const Lead lead = lead_of(static_cast<unsigned char>(text[0]));
  if (lead.num_bytes == 0) return {.num_bytes = 1, .kind = Utf8Kind::kBroken};
  for (std::size_t i = 1; i < lead.num_bytes; ++i) {
    if (i == text.size()) return {.num_bytes = i, .kind = Utf8Kind::kCutOff};
    const auto byte = static_cast<unsigned char>(text[i]);
    const unsigned char min = i == 1 ? lead.second_min : 0x80;
    const unsigned char max = i == 1 ? lead.second_max : 0xBF;
    if (byte < min || max < byte) return {.num_bytes = i, .kind = Utf8Kind::kBroken};
  }
  return {.num_bytes = lead.num_bytes, .kind = Utf8Kind::kCharacter};
}

bool is_valid_utf8(std::string_view text) {
  while (!text.empty()) {
    text.remove_prefix(ascii_words(text));
    if (text.empty()) break;
    const Utf8Unit unit = first_utf8_unit(text);
    if (unit.kind != Utf8Kind::kCharacter) return false;
    text.remove_prefix(unit.num_bytes);
  }
  return true;
}

std::string replace_broken_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Utf8Unit unit = first_utf8_unit(text);
    out +=
        unit.kind == Utf8Kind::kCharacter ? text.substr(0, unit.num_bytes) : kReplacementCharacter;
    text.remove_prefix(unit.num_bytes);
  }
  return out;
}

}  // namespace c2r
