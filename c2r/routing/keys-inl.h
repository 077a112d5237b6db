// Sort keys for experts: compiled once per instruction set.
//
// A key is the magnitude's bits with the score's sign, as an integer, with the lowest bits replaced
// by the complement of the expert's id: all keys of a token differ, and equal scores, 0 and -0
// among them, go to the lower expert. Where the replaced bits were not zero, two keys that differ
// only in them say nothing about their scores: choose() finds such tokens and leaves them to
// choose_experts().
#if defined(C2R_ROUTING_KEYS_INTERNAL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef C2R_ROUTING_KEYS_INTERNAL_H_
#undef C2R_ROUTING_KEYS_INTERNAL_H_
#else
#define C2R_ROUTING_KEYS_INTERNAL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "c2r/routing/policy_internal.h"
#include "c2r/routing/top_k-inl.h"

#if HWY_TARGET != HWY_SCALAR
HWY_BEFORE_NAMESPACE();
namespace c2r::HWY_NAMESPACE {

// More slots than this, from many small groups, are routed portably.
inline constexpr std::size_t kMaxSlots = kMaxExperts;
// A token's slots without an expert are fewer: kMaxTopK vectors are sorted at a time, or each group
// leaves part of a vector.
inline constexpr std::size_t kMaxUnused = kMaxTopK * 16;

// How a token's experts lie in vectors: each group starts a new vector, and lanes past its last
// expert are unused. Slot v * kLanes + i is lane i of vector v.
struct KeyLayout {
  std::size_t num_experts, group_size, vectors_per_group, num_vectors;
  std::int32_t kept_bits;                         // of the score
  alignas(64) std::int32_t kept_mask[kMaxSlots];  // of the magnitude; 0 where no expert is
  alignas(64) std::int32_t id_bits[kMaxSlots];    // complemented ids; kNoKey where no expert is
  alignas(64) float bias[kMaxSlots];              // set where the scores are sigmoids

  std::size_t num_slots() const { return num_vectors * kLanes; }
  // Floats from a row's start that are read.
  std::size_t read_width() const {
    const std::size_t last_group = num_experts - group_size + vectors_per_group * kLanes;
    return std::max(last_group, hwy::RoundUpTo(num_experts, 16));  // softmax sums: 16 at a time
  }
  HWY_INLINE Ints experts_of(Ints keys) const {
    return hn::Not(hn::Or(keys, hn::Set(IntTag(), kept_bits)));
  }
};

inline std::size_t slots_needed(const RouteTask& task) {
  const auto num_groups = static_cast<std::size_t>(task.policy.num_groups);
  const auto group_size = static_cast<std::size_t>(task.num_experts) / num_groups;
  return num_groups * hwy::RoundUpTo(group_size, kLanes);
}

// Without groups, the number of vectors is made a multiple of those that are sorted at a time.
inline void lay_out(const RouteTask& task, KeyLayout& layout) {
  const auto num_groups = static_cast<std::size_t>(task.policy.num_groups);
  layout.num_experts = static_cast<std::size_t>(task.num_experts);
  layout.group_size = layout.num_experts / num_groups;
  layout.vectors_per_group = hwy::DivCeil(layout.group_size, kLanes);
  layout.num_vectors = num_groups * layout.vectors_per_group;
  if (num_groups == 1) {
    const std::size_t capacity = std::bit_ceil(static_cast<std::size_t>(task.policy.top_k));
    layout.num_vectors =
        hwy::RoundUpTo(layout.num_vectors, std::min(capacity, std::bit_ceil(layout.num_vectors)));
    layout.vectors_per_group = layout.num_vectors;
  }
  layout.kept_bits = -static_cast<std::int32_t>(std::bit_ceil(layout.num_experts));
  const std::size_t slots_per_group = layout.vectors_per_group * kLanes;
  const std::vector<float>& bias = task.policy.selection_bias;
  for (std::size_t slot = 0; slot < layout.num_slots(); ++slot) {
    const std::size_t at = slot % slots_per_group;
    const std::size_t e = slot / slots_per_group * layout.group_size + at;
    const bool is_expert = at < layout.group_size;
    layout.kept_mask[slot] = is_expert ? layout.kept_bits & 0x7fffffff : 0;
    layout.id_bits[slot] = is_expert ? ~static_cast<std::int32_t>(e) & ~layout.kept_bits : kNoKey;
    layout.bias[slot] = is_expert && !bias.empty() ? bias[e] : 0.0f;
  }
}

// Each magnitude with the sign of its score, whose bits are zero only where the magnitude is.
HWY_INLINE Ints with_sign(Ints magnitude, Ints score) {
#if HWY_TARGET == HWY_AVX2
  return Ints{_mm256_sign_epi32(magnitude.raw, score.raw)};
#else
  return hn::IfNegativeThenElse(score, hn::Neg(magnitude), magnitude);
#endif
}

// The scores of vector `v` of the layout without the bits that keys drop, in an order that compares
// as integers; 0 where no expert is.
HWY_INLINE Ints ordered_bits(Floats scores, const KeyLayout& layout, std::size_t v) {
  constexpr IntTag d;
  const Ints bits = hn::BitCast(d, scores);
  return with_sign(hn::And(bits, hn::Load(d, layout.kept_mask + v * kLanes)), bits);
}

// The keys of vector `v` of the layout.
HWY_INLINE Ints make_keys(Ints ordered_bits, const KeyLayout& layout, std::size_t v) {
  return hn::Or(ordered_bits, hn::Load(IntTag(), layout.id_bits + v * kLanes));
}

HWY_INLINE Ints magnitude(Ints bits) {
  return hn::And(bits, hn::Set(IntTag(), 0x7fffffff));
}

// Prefetches into the second-level cache: the first-level one does not hold two blocks of 256
// experts, whose prefetch into it cost 40 % more time.
HWY_INLINE void prefetch(const float* at) {
  __builtin_prefetch(at, /*rw=*/0, /*locality=*/2);
}

// Prefetches the token kLanes after token `t`, so that the next block arrives while this one is
// computed.
HWY_INLINE void prefetch_next(const float* logits, std::size_t num_experts, std::size_t t) {
  constexpr std::size_t kLine = 16;  // floats
  const float* const next = logits + (t + kLanes) * num_experts;
  for (std::size_t e = 0; e < num_experts; e += kLine) prefetch(next + e);
}

// Keys made of logits as they are read. One group.
class LogitKeys {
 public:
  // @param logits [kLanes, num_experts]
  LogitKeys(const float* logits, const KeyLayout& layout)
      : logits_(logits),
        layout_(&layout),
        num_experts_(layout.num_experts),
        least_(hn::Set(IntTag(), std::numeric_limits<std::int32_t>::max())) {}

  std::size_t num_vectors() const { return layout_->num_vectors; }
  static constexpr bool has(std::size_t) { return true; }
  // The least ordered bits read so far, 0 where no expert is.
  Ints least() const { return least_; }

  HWY_INLINE void start(std::size_t t) const { prefetch_next(logits_, num_experts_, t); }

  HWY_INLINE Ints load(std::size_t t, std::size_t v) {
    const Floats logits = hn::LoadU(FloatTag(), logits_ + t * num_experts_ + v * kLanes);
    const Ints ordered = ordered_bits(logits, *layout_, v);
    least_ = hn::Min(least_, ordered);
    return make_keys(ordered, *layout_, v);
  }

 private:
  const float* logits_;
  const KeyLayout* layout_;
  std::size_t num_experts_;
  Ints least_;
};

// The same keys, kept for a second reading. That one prefetches: the first is so quick that it
// would wait for memory.
class KeptLogitKeys {
 public:
  // @param kept [kLanes, num_vectors, kLanes]
  KeptLogitKeys(const LogitKeys& keys, std::int32_t* kept)
      : keys_(keys), kept_(kept), num_vectors_(keys.num_vectors()) {}

  std::size_t num_vectors() const { return num_vectors_; }
  static constexpr bool has(std::size_t) { return true; }
  Ints least() const { return keys_.least(); }
  void start(std::size_t) const {}

  HWY_INLINE Ints load(std::size_t t, std::size_t v) {
    const Ints key = keys_.load(t, v);
    hn::Store(key, IntTag(), kept_ + (t * num_vectors_ + v) * kLanes);
    return key;
  }

 private:
  LogitKeys keys_;
  std::int32_t* kept_;
  std::size_t num_vectors_;  // a copy: the compiler assumes that stores may change the layout
};

// By how much to shift a word for its bit i to become the sign.
inline constexpr auto kToSign = [] {
  std::array<std::int32_t, 32> shifts{};
  for (int i = 0; i < 32; ++i) shifts[static_cast<std::size_t>(i)] = 31 - i;
  return shifts;
}();

// Of kept keys, those of the experts in each token's set of candidates.
class CandidateKeys {
 public:
  // @param kept [kLanes, num_vectors, kLanes]
  // @param sets one per token, bit b of word w: expert 32 w + b
  // @param logits [kLanes, num_experts], after which to prefetch
  CandidateKeys(const std::int32_t* kept, const std::uint32_t* const* sets, const float* logits,
                const KeyLayout& layout)
      : kept_(kept),
        sets_(sets),
        logits_(logits),
        num_experts_(layout.num_experts),
        num_vectors_(layout.num_vectors),
        num_used_(hwy::DivCeil(layout.num_experts, kLanes)) {}

  std::size_t num_vectors() const { return num_vectors_; }
  bool has(std::size_t v) const { return v < num_used_; }
  HWY_INLINE void start(std::size_t t) const { prefetch_next(logits_, num_experts_, t); }

  HWY_INLINE Ints load(std::size_t t, std::size_t v) const {
    constexpr IntTag d;
    const auto word = static_cast<std::int32_t>(sets_[t][v * kLanes / 32]);
    const Ints shifts = hn::LoadU(d, kToSign.data() + v * kLanes % 32);
    const Ints key = hn::Load(d, kept_ + (t * num_vectors_ + v) * kLanes);
    return hn::IfNegativeThenElse(hn::Shl(hn::Set(d, word), shifts), key, hn::Set(d, kNoKey));
  }

 private:
  const std::int32_t* kept_;
  const std::uint32_t* const* sets_;
  const float* logits_;
  std::size_t num_experts_, num_vectors_, num_used_;
};

}  // namespace c2r::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // HWY_TARGET != HWY_SCALAR

#endif  // per-target include guard
