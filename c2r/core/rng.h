// Random numbers that are the same on every platform, unlike those of the std:: distributions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <utility>

#include "c2r/core/error.h"

namespace c2r {

/// A hash of `x`, the finalizer of SplitMix64. For random choices that must depend on their
/// coordinates alone, not on the number of choices before them.
constexpr std::uint64_t mix_bits(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

/// @param n positive
/// @returns an integer in [0, n); each is equally likely
inline std::uint64_t uniform_below(std::uint64_t n, std::mt19937_64& rng) {
  C2R_ASSERT(n > 0);
  // Draws beyond the last multiple of n would favour the small remainders.
  const std::uint64_t limit = UINT64_MAX - UINT64_MAX % n;
  std::uint64_t draw = rng();
  while (draw >= limit) draw = rng();
  return draw % n;
}

/// Shuffles `items`, so that every order is equally likely (Fisher-Yates).
template <class T>
void shuffle(std::span<T> items, std::mt19937_64& rng) {
  for (std::size_t last = items.size(); last > 1; --last) {
    std::swap(items[last - 1], items[uniform_below(last, rng)]);
  }
}

}  // namespace c2r
