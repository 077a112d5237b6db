// The top-k of many tokens at once: compiled once per instruction set, by policy_vectors.cc.
//
// A block has as many tokens as a vector has lanes. Each token first sorts its vectors of keys lane
// by lane into one list per lane. Then, in log2(kLanes) levels, the tokens are paired, and one half
// of each token's lists is merged with the other half, which halves the lanes a token occupies.
// First lanes are interleaved, as processors do at once:
//     token A   a0 a1 a2 a3      lower lanes   a0 b0 a1 b1
//     token B   b0 b1 b2 b3      upper lanes   a2 b2 a3 b3
// then even and odd pairs of lanes are separated, so that in the end lane t of vector r holds the
// r-th best key of token t. All keys of a token differ, which makes the result independent of the
// order in which lists are merged.
#if defined(C2R_ROUTING_TOP_K_INTERNAL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef C2R_ROUTING_TOP_K_INTERNAL_H_
#undef C2R_ROUTING_TOP_K_INTERNAL_H_
#else
#define C2R_ROUTING_TOP_K_INTERNAL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>

#include "c2r/routing/networks_internal.h"
#include "c2r/routing/routing.h"

#if HWY_TARGET != HWY_SCALAR
HWY_BEFORE_NAMESPACE();
namespace c2r::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// 16 partial sums (policy.h) are folded lane by lane, so a vector has at most 16.
inline constexpr std::size_t kLanes = HWY_MIN(16, HWY_MAX_BYTES / sizeof(std::int32_t));
using IntTag = hn::FixedTag<std::int32_t, kLanes>;
using FloatTag = hn::FixedTag<float, kLanes>;
using Ints = hn::Vec<IntTag>;
using Floats = hn::Vec<FloatTag>;

// Stands for no key; it is below the key of any finite score.
inline constexpr std::int32_t kNoKey = std::numeric_limits<std::int32_t>::min();

// The sorted lists while they are merged from one per lane into one per token. The rows of list g
// are its keys, best first; row `capacity` is the best key that did not fit, or kNoKey if all did.
struct Lists {
  std::size_t capacity;  // a power of two <= kMaxTopK
  alignas(64) std::int32_t keys[kLanes / 2 * (kMaxTopK + 1) * kLanes];

  std::int32_t* row(std::size_t list, std::size_t r) {
    return keys + (list * (capacity + 1) + r) * kLanes;
  }
};

HWY_INLINE void order(Ints& a, Ints& b) {
  const Ints larger = hn::Max(a, b);
  b = hn::Min(a, b);
  a = larger;
}

template <const auto& kNetwork, std::size_t... kAt>
HWY_INLINE void apply(Ints* list, std::index_sequence<kAt...>) {
  (order(list[kNetwork[kAt].i], list[kNetwork[kAt].j]), ...);
}

// Longer networks than this are loops over their table: unrolled, those for 16 and 32 keys take the
// compiler minutes, and their lists do not fit into registers anyway.
inline constexpr std::size_t kMaxUnrolled = 32;

template <const auto& kNetwork>
HWY_INLINE void apply(Ints* list) {
  if constexpr (kNetwork.size() <= kMaxUnrolled) {
    apply<kNetwork>(list, std::make_index_sequence<kNetwork.size()>());
  } else {
    for (const Comparator& c : kNetwork) order(list[c.i], list[c.j]);
  }
}

// list = the best K of two sorted lists, sorted; next = the best of the rest and `next`.
template <std::size_t K>
HWY_INLINE void keep_best(Ints* list, const Ints* other, Ints& next) {
  for (std::size_t r = 0; r < K; ++r) {
    next = hn::Max(next, hn::Min(list[r], other[K - 1 - r]));
    list[r] = hn::Max(list[r], other[K - 1 - r]);
  }
  apply<kSortBitonic<K>>(list);
}

// list = the best L keys in each lane of token `t`, sorted; next = the best of the rest.
// kIsShort: there are at most L vectors.
template <std::size_t L, bool kIsShort, class Source>
HWY_INLINE void sort_token(Source& source, std::size_t t, Ints* list, Ints& next) {
  const Ints none = hn::Set(IntTag(), kNoKey);
  const std::size_t num_vectors = source.num_vectors();
  source.start(t);
  next = none;
  for (std::size_t v = 0; v < L; ++v) list[v] = source.has(v) ? source.load(t, v) : none;
  apply<kSort<L>>(list);
  if constexpr (kIsShort) return;
  for (std::size_t first = L; first < num_vectors; first += L) {
    Ints more[L];
    for (std::size_t v = 0; v < L; ++v) {
      more[v] = source.has(first + v) ? source.load(t, first + v) : none;
    }
    apply<kSort<L>>(more);
    keep_best<L>(list, more, next);
  }
}

// The two halves of each of two tokens' lists, lanes of `a` before those of `b`.
struct PairTokens {
  static HWY_INLINE Ints first(Ints a, Ints b) { return hn::InterleaveLower(IntTag(), a, b); }
  static HWY_INLINE Ints second(Ints a, Ints b) { return hn::InterleaveUpper(IntTag(), a, b); }
};

// The same of two runs of tokens, whose lanes hold pairs of tokens.
struct PairRuns {
  static constexpr hn::Repartition<std::int64_t, IntTag> d{};
  static HWY_INLINE Ints first(Ints a, Ints b) {
    return hn::BitCast(IntTag(), hn::ConcatEven(d, hn::BitCast(d, b), hn::BitCast(d, a)));
  }
  static HWY_INLINE Ints second(Ints a, Ints b) {
    return hn::BitCast(IntTag(), hn::ConcatOdd(d, hn::BitCast(d, b), hn::BitCast(d, a)));
  }
};

// Pairs the lists of L keys of two tokens, or of two runs of tokens, into one: of L keys if that is
// the capacity, else of 2 L.
template <class Pair, std::size_t L, bool kIsFull>
HWY_INLINE void pair_into_row(const Ints* a, Ints next_a, const Ints* b, Ints next_b,
                              std::size_t pair, Lists& lists) {
  constexpr IntTag d;
  Ints list[2 * L];
  for (std::size_t r = 0; r < L; ++r) {
    list[r] = Pair::first(a[r], b[r]);
    list[L + r] = Pair::second(a[r], b[r]);
  }
  Ints next = hn::Set(d, kNoKey);  // nothing is left out before lists are full
  if constexpr (kIsFull) {
    next = hn::Max(Pair::first(next_a, next_b), Pair::second(next_a, next_b));
    keep_best<L>(list, list + L, next);
  } else {
    apply<kMerge<2 * L>>(list);
  }
  // Computed once: the compiler assumes that the stores below may change `lists`.
  std::int32_t* const rows = lists.row(pair, 0);
  for (std::size_t r = 0; r < (kIsFull ? L : 2 * L); ++r) hn::Store(list[r], d, rows + r * kLanes);
  hn::Store(next, d, rows + lists.capacity * kLanes);
}

// Lists of up to L keys of single tokens, paired at once: storing them would take longer.
template <std::size_t L, bool kIsFull, bool kIsShort, class Source>
HWY_NOINLINE void sort_and_pair(Source& source, Lists& lists) {
  Source local = source;  // so that its state stays in registers
  for (std::size_t pair = 0; pair < kLanes / 2; ++pair) {
    Ints a[L], b[L], next_a, next_b;
    sort_token<L, kIsShort>(local, 2 * pair, a, next_a);
    sort_token<L, kIsShort>(local, 2 * pair + 1, b, next_b);
    pair_into_row<PairTokens, L, kIsFull>(a, next_a, b, next_b, pair, lists);
  }
  source = local;
}

template <std::size_t L, bool kIsFull>
HWY_NOINLINE void pair_lists(Lists& lists, std::size_t num_pairs) {
  constexpr IntTag d;
  for (std::size_t pair = 0; pair < num_pairs; ++pair) {
    Ints a[L], b[L];
    for (std::size_t r = 0; r < L; ++r) {
      a[r] = hn::Load(d, lists.row(2 * pair, r));
      b[r] = hn::Load(d, lists.row(2 * pair + 1, r));
    }
    pair_into_row<PairRuns, L, kIsFull>(a, hn::Load(d, lists.row(2 * pair, lists.capacity)), b,
                                        hn::Load(d, lists.row(2 * pair + 1, lists.capacity)), pair,
                                        lists);
  }
}

// Calls sort_and_pair() for lists of `length` keys, a power of two <= the capacity.
template <std::size_t L = 1, class Source>
HWY_INLINE void sort_into(Source& source, std::size_t length, Lists& lists) {
  if constexpr (L < kMaxTopK) {
    if (length > L) return sort_into<2 * L>(source, length, lists);
    if (length < lists.capacity) return sort_and_pair<L, false, true>(source, lists);
  }
  if (source.num_vectors() <= L) return sort_and_pair<L, true, true>(source, lists);
  sort_and_pair<L, true, false>(source, lists);
}

template <std::size_t L = 1>
HWY_INLINE void pair_all(std::size_t length, Lists& lists, std::size_t num_pairs) {
  if constexpr (L < kMaxTopK) {
    if (length > L) return pair_all<2 * L>(length, lists, num_pairs);
    if (length < lists.capacity) return pair_lists<L, false>(lists, num_pairs);
  }
  pair_lists<L, true>(lists, num_pairs);
}

// Leaves the best keys of token t in lane t of the rows of list 0: lists.capacity of them, best
// first, and then the best of the rest.
// Source: num_vectors(); start(t), called before token t; has(v), whether load(t, v) may be called,
// if not every v below num_vectors() rounded up to a multiple of what is sorted at a time has a
// vector; load(t, v), the v-th vector of token t's keys, all keys distinct, or kNoKey.
template <class Source>
HWY_INLINE void select_top(Source& source, Lists& lists) {
  std::size_t length = std::min(lists.capacity, std::bit_ceil(source.num_vectors()));
  sort_into(source, length, lists);
  for (std::size_t num_pairs = kLanes / 4; num_pairs >= 1; num_pairs /= 2) {
    length = std::min(2 * length, lists.capacity);
    pair_all(length, lists, num_pairs);
  }
  for (std::size_t r = std::min(2 * length, lists.capacity); r < lists.capacity; ++r) {
    hn::Store(hn::Set(IntTag(), kNoKey), IntTag(), lists.row(0, r));
  }
}

// The best two values in each lane: at first of one token, at last of token t in lane t. Tokens are
// paired by even and odd lanes, all in registers.
template <class V>
struct TopTwo {
  V best, second;
};

template <class V>
HWY_INLINE TopTwo<V> pair_top_two(const TopTwo<V>& a, const TopTwo<V>& b) {
  constexpr hn::FixedTag<hn::TFromV<V>, kLanes> d;
  const V even = hn::ConcatEven(d, b.best, a.best), odd = hn::ConcatOdd(d, b.best, a.best);
  const V second =
      hn::Max(hn::ConcatEven(d, b.second, a.second), hn::ConcatOdd(d, b.second, a.second));
  return {hn::Max(even, odd), hn::Max(hn::Min(even, odd), second)};
}

template <std::size_t kCount, class V>
HWY_INLINE TopTwo<V> pair_all_top_two(const TopTwo<V>* runs) {
  if constexpr (kCount == 1) {
    return *runs;
  } else {
    return pair_top_two(pair_all_top_two<kCount / 2>(runs),
                        pair_all_top_two<kCount / 2>(runs + kCount / 2));
  }
}

// The best two keys in each lane of token `t`.
template <class Source>
HWY_INLINE TopTwo<Ints> top_two_of_token(Source& source, std::size_t t) {
  const std::size_t num_vectors = source.num_vectors();
  source.start(t);
  TopTwo<Ints> two{hn::Set(IntTag(), kNoKey), hn::Set(IntTag(), kNoKey)};
  const auto add = [&](std::size_t v) HWY_ATTR {
    const Ints key = source.load(t, v);
    two.second = hn::Max(two.second, hn::Min(two.best, key));
    two.best = hn::Max(two.best, key);
  };
  std::size_t v = 0;
  for (; v + 4 <= num_vectors; v += 4) add(v), add(v + 1), add(v + 2), add(v + 3);
  for (; v < num_vectors; ++v) add(v);
  return two;
}

// The best two keys of each token.
template <class Source>
HWY_INLINE TopTwo<Ints> select_top_two(Source& source) {
  TopTwo<Ints> pairs[kLanes / 2];
  for (std::size_t pair = 0; pair < kLanes / 2; ++pair) {
    const TopTwo<Ints> a = top_two_of_token(source, 2 * pair);
    pairs[pair] = pair_top_two(a, top_two_of_token(source, 2 * pair + 1));
  }
  return pair_all_top_two<kLanes / 2>(pairs);
}

}  // namespace c2r::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // HWY_TARGET != HWY_SCALAR

#endif  // per-target include guard
