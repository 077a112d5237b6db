// 64-bit hash that detects accidental differences; not cryptographic.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "c2r/core/rng.h"

namespace c2r {

/// Hashes a sequence of values. Machines of the same byte order compute the same hash.
class Fingerprint {
 public:
  explicit Fingerprint(std::uint64_t start = 0) : hash_(start) {}

  /// Adds an integer or an enumerator.
  template <class T>
  void add(T value) {
    hash_ = mix_bits(hash_ + static_cast<std::uint64_t>(value));
  }
  /// Adds bytes, eight at a time; the last eight are padded with zeros. Callers whose number of
  /// bytes may differ add that number, too.
  void add_bytes(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      std::uint64_t word = 0;
      const std::size_t count = std::min(bytes.size(), sizeof(word));
      std::memcpy(&word, bytes.data(), count);
      add(word);
      bytes = bytes.subspan(count);
    }
  }
  std::uint64_t value() const { return hash_; }

 private:
  std::uint64_t hash_;
};

}  // namespace c2r
