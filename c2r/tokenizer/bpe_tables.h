// The two hash tables in which encoding spends its time. Each is one flat array with open
// addressing, which takes half the time of std::unordered_map here.
#pragma once

#include <bit>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/core/ids.h"

namespace c2r {

inline constexpr TokenId kNoToken{-1};

/// Finds merges by their two tokens.
class MergeTable {
 public:
  struct Merge {
    std::uint64_t key = kEmpty;
    std::int32_t rank = 0;
    TokenId merged = kNoToken;
  };

  explicit MergeTable(std::size_t max_merges)
      : slots_(std::bit_ceil(2 * max_merges + 1)), mask_(slots_.size() - 1) {}

  /// Adds a merge, or replaces the merge of the same two tokens. At most `max_merges` are added.
  void set(TokenId left, TokenId right, std::int32_t rank, TokenId merged) {
    const std::uint64_t key = key_of(left, right);
    slots_[slot_of(key)] = {.key = key, .rank = rank, .merged = merged};
  }

  /// @returns nullptr if the two have no merge
  const Merge* find(TokenId left, TokenId right) const {
    const Merge& slot = slots_[slot_of(key_of(left, right))];
    return slot.key == kEmpty ? nullptr : &slot;
  }

 private:
  static constexpr std::uint64_t kEmpty = ~std::uint64_t{0};  // ids are not negative

  static std::uint64_t key_of(TokenId left, TokenId right) {
    return std::uint64_t{index(left)} << 32 | index(right);
  }
  // The slot that has the key, or the empty slot in which it belongs.
  std::size_t slot_of(std::uint64_t key) const {
    const std::uint64_t mixed = key * 0x9E3779B97F4A7C15u;  // 2^64 / golden ratio
    std::size_t slot = (mixed ^ mixed >> 32) & mask_;
    while (slots_[slot].key != key && slots_[slot].key != kEmpty) slot = (slot + 1) & mask_;
    return slot;
  }

  std::vector<Merge> slots_;  // at most half full
  std::size_t mask_;
};

/// Finds tokens by their texts, which it does not own.
class TokenTable {
 public:
  /// @param texts by id; empty texts are left out. Must outlive the table and not change.
  explicit TokenTable(const std::vector<std::string>& texts)
      : slots_(std::bit_ceil(2 * texts.size() + 1)), mask_(slots_.size() - 1) {
    for (std::size_t id = 0; id < texts.size(); ++id) {
      if (texts[id].empty()) continue;
      const auto hash = hash_of(texts[id]);
      slots_[slot_of(texts, texts[id], hash)] = {hash, TokenId(static_cast<std::int32_t>(id))};
    }
  }

  /// @param texts as given to the constructor
  /// @returns the token with this text; kNoToken if there is none
  TokenId find(const std::vector<std::string>& texts, std::string_view text) const {
    return slots_[slot_of(texts, text, hash_of(text))].id;
  }

 private:
  struct Slot {
    std::uint32_t hash = 0;
    TokenId id = kNoToken;
  };

  static std::uint32_t hash_of(std::string_view text) {
    return static_cast<std::uint32_t>(std::hash<std::string_view>{}(text));
  }
  std::size_t slot_of(const std::vector<std::string>& texts, std::string_view text,
                      std::uint32_t hash) const {
    std::size_t slot = hash & mask_;
    while (slots_[slot].id != kNoToken &&
           (slots_[slot].hash != hash || texts[index(slots_[slot].id)] != text)) {
      slot = (slot + 1) & mask_;
    }
    return slot;
  }

  std::vector<Slot> slots_;  // at most half full
  std::size_t mask_;
};

}  // namespace c2r
