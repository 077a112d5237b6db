// What tells two things apart that were meant to be the same. Not for those who mean to deceive.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "c2r/core/rng.h"

namespace c2r {

/// A hash of what was added, in its order. The same on every machine of one byte order.
class Fingerprint {
 public:
  explicit Fingerprint(std::uint64_t start = 0) : hash_(start) {}

  /// An integer or an enumerator.
  template <class T>
  void add(T value) {
    hash_ = mix_bits(hash_ + static_cast<std::uint64_t>(value));
  }
  /// Eight at a time, the last filled up with zeros: add their number where it may differ.
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
