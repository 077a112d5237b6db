// Comparator networks, as tables: which pairs (i, j), i < j, to put in order, larger first, and
// when. Batcher, "Sorting networks and their applications", 1968.
#pragma once

#include <array>
#include <cstddef>

namespace c2r {

struct Comparator {
  std::size_t i = 0, j = 0;
};

namespace network_details {

// Calls visit(i, j) for Batcher's odd-even merge sort of `n` keys, a power of two, from the phase
// on in which runs of `sorted` keys are in order.
template <class Visit>
constexpr void odd_even_merges(std::size_t n, std::size_t sorted, Visit visit) {
  for (std::size_t p = sorted; p < n; p *= 2) {
    for (std::size_t k = p; k >= 1; k /= 2) {
      for (std::size_t j = k % p; j + k < n; j += 2 * k) {
        for (std::size_t i = j; i < j + k && i + k < n; ++i) {
          if (i / (2 * p) == (i + k) / (2 * p)) visit(i, i + k);
        }
      }
    }
  }
}

// The same for a bitonic sequence of `n` keys.
template <class Visit>
constexpr void half_cleaners(std::size_t n, Visit visit) {
  for (std::size_t k = n / 2; k >= 1; k /= 2) {
    for (std::size_t i = 0; i < n; ++i) {
      if (i / k % 2 == 0) visit(i, i + k);
    }
  }
}

template <class Walk>
constexpr std::size_t count(Walk walk) {
  std::size_t n = 0;
  walk([&](std::size_t, std::size_t) { ++n; });
  return n;
}

template <std::size_t kSize, class Walk>
constexpr std::array<Comparator, kSize> table(Walk walk) {
  std::array<Comparator, kSize> comparators{};
  std::size_t n = 0;
  walk([&](std::size_t i, std::size_t j) { comparators[n++] = {i, j}; });
  return comparators;
}

template <std::size_t kLength, std::size_t kSorted>
struct OddEvenMerges {
  template <class Visit>
  constexpr void operator()(Visit visit) const {
    odd_even_merges(kLength, kSorted, visit);
  }
};

template <std::size_t kLength>
struct HalfCleaners {
  template <class Visit>
  constexpr void operator()(Visit visit) const {
    half_cleaners(kLength, visit);
  }
};

template <class Walk>
inline constexpr auto kTable = table<count(Walk{})>(Walk{});

}  // namespace network_details

/// Sorts kLength keys.
template <std::size_t kLength>
inline constexpr auto& kSort = network_details::kTable<network_details::OddEvenMerges<kLength, 1>>;

/// Sorts kLength keys whose two halves are sorted.
template <std::size_t kLength>
inline constexpr auto& kMerge =
    network_details::kTable<network_details::OddEvenMerges<kLength, kLength / 2>>;

/// Sorts kLength keys that first descend and then ascend, or the other way round.
template <std::size_t kLength>
inline constexpr auto& kSortBitonic =
    network_details::kTable<network_details::HalfCleaners<kLength>>;

}  // namespace c2r
