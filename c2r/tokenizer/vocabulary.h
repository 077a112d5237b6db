// The tokens of a tokenizer's file by id and by text, while it is read.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <unordered_map>

#include "c2r/core/ids.h"
#include "c2r/tokenizer/tokenizer_spec.h"

namespace c2r {

/// Decodes the byte-level alphabet of GPT-2, which writes each byte as one printable character, so
/// that tokens are text in JSON.
/// @returns the bytes that `token` stands for; nothing if it has characters that are not in the
///          alphabet, as only added tokens may
std::optional<std::string> bytes_of_byte_level(std::string_view token);

/// @returns the byte that a token like <0xE4> stands for; nothing for other tokens
std::optional<unsigned char> fallback_byte(std::string_view token);

/// A one-to-one table of token ids and texts, as the file spells them.
class Vocabulary {
 public:
  explicit Vocabulary(std::string place) : place_(std::move(place)) {}

  /// @throws Error(kInvalidFile) if the id has another text already, or the text another id
  void add(std::string_view text, TokenId id);

  std::optional<TokenId> find(std::string_view text) const;
  /// As find().
  /// @param what the key that names the token, for the message
  /// @throws Error(kInvalidFile) if there is no such token
  TokenId at(std::string_view text, std::string_view what) const;

  std::size_t size() const { return texts_.size(); }  // one more than the largest id
  std::size_t num_tokens() const { return ids_.size(); }
  const std::string& text(std::size_t id) const { return texts_[id]; }  // empty: no token

 private:
  std::string place_;
  std::vector<std::string> texts_;
  std::unordered_map<std::string, TokenId> ids_;
};

}  // namespace c2r
