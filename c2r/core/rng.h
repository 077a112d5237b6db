// Random numbers that are the same on every platform: the std:: distributions are not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <utility>

#include "c2r/core/error.h"

namespace c2r {

/// Scatters the bits of `x` (the finalizer of SplitMix64): a hash for a choice that must depend
/// on its coordinates alone, not on how many choices were made before it.
constexpr std::uint64_t mix_bits(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

/// An integer in [0, n), each equally likely. `n` must be positive.
inline std::uint64_t uniform_below(std::uint64_t n, std::mt19937_64& rng) {
  C2R_ASSERT(n > 0);
  // Draws beyond the last multiple of n would favour the small remainders.
  const std::uint64_t limit = UINT64_MAX - UINT64_MAX % n;
  std::uint64_t draw = rng();
  while (draw >= limit) draw = rng();
  return draw % n;
}

/// Puts `items` in an order of which each is equally likely (Fisher-Yates).
template <class T>
void shuffle(std::span<T> items, std::mt19937_64& rng) {
  for (std::size_t last = items.size(); last > 1; --last) {
    std::swap(items[last - 1], items[uniform_below(last, rng)]);
  }
}

}  // namespace c2r
