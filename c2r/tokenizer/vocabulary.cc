// The byte-level alphabet, fallback bytes, and the table of tokens by id and by text.
#include "c2r/tokenizer/vocabulary.h"

#include <utf8proc.h>

#include <array>
#include <charconv>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"

namespace c2r {
namespace {

// The byte of each character of the alphabet, by code point; -1: no byte. Printable bytes are
// written as themselves, the other bytes, in order, as the characters from U+0100 on.
constexpr std::array<std::int16_t, 0x144> byte_level_alphabet() {
  std::array<std::int16_t, 0x144> bytes{};
  for (auto& byte : bytes) byte = -1;
  std::size_t next = 0x100;
  for (std::size_t byte = 0; byte < 256; ++byte) {
    const bool is_printable = (0x21 <= byte && byte <= 0x7E) || (0xA1 <= byte && byte <= 0xAC) ||
                              (0xAE <= byte && byte <= 0xFF);
    bytes[is_printable ? byte : next++] = static_cast<std::int16_t>(byte);
  }
  return bytes;
}
constexpr auto kByteLevelAlphabet = byte_level_alphabet();

}  // namespace

std::optional<std::string> bytes_of_byte_level(std::string_view token) {
  std::string bytes;
  while (!token.empty()) {
    utf8proc_int32_t character = -1;
    const auto length = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(token.data()),
                                         static_cast<utf8proc_ssize_t>(token.size()), &character);
    if (length < 1 || character >= std::ssize(kByteLevelAlphabet)) return std::nullopt;
    const std::int16_t byte = kByteLevelAlphabet[std::size_t(character)];
    if (byte < 0) return std::nullopt;
    bytes += static_cast<char>(byte);
    token.remove_prefix(static_cast<std::size_t>(length));
  }
  return bytes;
}

std::optional<unsigned char> fallback_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || !token.ends_with('>')) return std::nullopt;
  unsigned value = 0;
  const auto [end, error] = std::from_chars(token.data() + 3, token.data() + 5, value, 16);
  if (error != std::errc() || end != token.data() + 5) return std::nullopt;
  return static_cast<unsigned char>(value);
}

void Vocabulary::add(std::string_view text, TokenId id) {
  if (index(id) >= texts_.size()) texts_.resize(index(id) + 1);
  const auto [entry, is_new] = ids_.emplace(text, id);
  C2R_REQUIRE(entry->second == id, kInvalidFile, "{}: the token '{}' has two ids, {} and {}",
              place_, shown(text), index(entry->second), index(id));
  C2R_REQUIRE(texts_[index(id)].empty() || texts_[index(id)] == text, kInvalidFile,
              "{}: the id {} is of two tokens, '{}' and '{}'", place_, index(id),
              shown(texts_[index(id)]), shown(text));
  texts_[index(id)] = text;
}

std::optional<TokenId> Vocabulary::find(std::string_view text) const {
  const auto found = ids_.find(std::string(text));
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

TokenId Vocabulary::at(std::string_view text, std::string_view what) const {
  const auto id = find(text);
  C2R_REQUIRE(id, kInvalidFile, "{}: {} names the token '{}', which is not in the vocabulary",
              place_, what, shown(text));
  return *id;
}

}  // namespace c2r
