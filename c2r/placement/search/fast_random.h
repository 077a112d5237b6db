// Random numbers for searches, which draw millions.
#pragma once

#include <cstdint>

#include "c2r/core/rng.h"

namespace c2r {

/// SplitMix64: a few cycles a draw, the same on every platform.
class FastRandom {
 public:
  explicit FastRandom(std::uint64_t seed) : state_(mix_bits(seed)) {}

  /// An integer in [0, n); the bias is below n / 2^32.
  std::int32_t below(std::int32_t n) {
    return static_cast<std::int32_t>(((next() >> 32) * static_cast<std::uint64_t>(n)) >> 32);
  }
  /// A number in (0, 1).
  double unit() { return (static_cast<double>(next() >> 11) + 0.5) * 0x1p-53; }

 private:
  std::uint64_t next() { return mix_bits(state_ += 0x9e3779b97f4a7c15u); }

  std::uint64_t state_;
};

}  // namespace c2r
