// Tokens by id and by text while a tokenizer's file is read.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <unordered_map>

#include "c2r/core/ids.h"
#include "c2r/tokenizer/tokenizer_spec.h"

namespace c2r {

/// The byte-level alphabet of GPT-2: each byte is written as one printable character, so that
/// tokens are text in JSON. @returns the bytes that `token` stands for, or nothing if it has
/// characters that are not in the alphabet, as only added tokens may
std::optional<std::string> bytes_of_byte_level(std::string_view token);

/// The byte that a token like <0xE4> stands for, if it is one.
std::optional<unsigned char> fallback_byte(std::string_view token);

/// The tokens as a file spells them, each of which has one id.
class Vocabulary {
 public:
  explicit Vocabulary(std::string place) : place_(std::move(place)) {}

  /// @throws Error(kInvalidFile) if the id or the text has been added with another partner already
  void add(std::string_view text, TokenId id);

  std::optional<TokenId> find(std::string_view text) const;
  /// As find(). @throws Error(kInvalidFile), with `what` wants it, if there is no such token
  TokenId at(std::string_view text, std::string_view what) const;

  std::size_t size() const { return texts_.size(); }  // one more than the largest id
  const std::string& text(std::size_t id) const { return texts_[id]; }  // empty: no token

 private:
  std::string place_;
  std::vector<std::string> texts_;
  std::unordered_map<std::string, TokenId> ids_;
};

}  // namespace c2r
