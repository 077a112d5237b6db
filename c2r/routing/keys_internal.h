// Sort keys for experts: compiled once per instruction set.
//
// A key is the score's bits, made to compare as an integer, with the lowest bits replaced by the
// complement of the expert's id: all keys of a token differ, and equal scores go to the lower
// expert. Where the replaced bits were not zero, two keys that differ only in them say nothing
// about their scores: choose() finds such tokens and leaves them to choose_experts().
#if defined(C2R_ROUTING_KEYS_INTERNAL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef C2R_ROUTING_KEYS_INTERNAL_H_
#undef C2R_ROUTING_KEYS_INTERNAL_H_
#else
#define C2R_ROUTING_KEYS_INTERNAL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "c2r/routing/policy_internal.h"
#include "c2r/routing/top_k_internal.h"

#if HWY_TARGET != HWY_SCALAR
HWY_BEFORE_NAMESPACE();
namespace c2r::HWY_NAMESPACE {

// More slots than this, from many small groups, are routed portably.
inline constexpr std::size_t kMaxSlots = kMaxExperts;

// How a token's experts lie in vectors: each group starts a new vector, and lanes past its last
// expert are unused. Slot v * kLanes + i is lane i of vector v.
struct KeyLayout {
  std::size_t num_experts, group_size, vectors_per_group, num_vectors;
  std::int32_t kept_bits;                       // of the score
  alignas(64) std::int32_t id_bits[kMaxSlots];  // complemented ids
  alignas(64) float bias[kMaxSlots];            // set where the scores are sigmoids

  std::size_t num_slots() const { return num_vectors * kLanes; }
  bool has_padding() const { return group_size % kLanes != 0; }
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

inline void lay_out(const RouteTask& task, KeyLayout& layout) {
  const auto num_groups = static_cast<std::size_t>(task.policy.num_groups);
  layout.num_experts = static_cast<std::size_t>(task.num_experts);
  layout.group_size = layout.num_experts / num_groups;
  layout.vectors_per_group = hwy::DivCeil(layout.group_size, kLanes);
  layout.num_vectors = num_groups * layout.vectors_per_group;
  layout.kept_bits = -static_cast<std::int32_t>(std::bit_ceil(layout.num_experts));
  const std::size_t slots_per_group = layout.vectors_per_group * kLanes;
  const std::vector<float>& bias = task.policy.selection_bias;
  for (std::size_t slot = 0; slot < layout.num_slots(); ++slot) {
    const std::size_t at = slot % slots_per_group;
    const std::size_t e = slot / slots_per_group * layout.group_size + at;
    layout.id_bits[slot] = ~static_cast<std::int32_t>(e) & ~layout.kept_bits;
    layout.bias[slot] = at < layout.group_size && !bias.empty() ? bias[e] : 0.0f;
  }
}

HWY_INLINE Ints make_key(Ints bits_of_score, std::int32_t kept_bits, Ints id_bits) {
  constexpr IntTag d;
  const Ints sign = hn::ShiftRight<31>(bits_of_score);
  const Ints ordered = hn::Xor(bits_of_score, hn::And(sign, hn::Set(d, 0x7fffffff)));
  return hn::Or(hn::And(ordered, hn::Set(d, kept_bits)), id_bits);
}

// The bits of x, -0 turned into +0.
HWY_INLINE Ints bits_of(Floats x) {
  return hn::BitCast(IntTag(), hn::Add(x, hn::Zero(FloatTag())));
}

HWY_INLINE Ints magnitude(Ints bits) {
  return hn::And(bits, hn::Set(IntTag(), 0x7fffffff));
}

// Prefetches into the second-level cache: the first-level one does not hold two blocks of 256
// experts, whose prefetch into it cost 40 % more time.
HWY_INLINE void prefetch(const float* at) {
  __builtin_prefetch(at, /*rw=*/0, /*locality=*/2);
}

// Prefetches a quarter of the row kLanes tokens after `row`, so that the next block arrives while
// this one is computed. Each of a block's stages asks for its share: all at once would wait for the
// processor's few miss buffers.
template <std::size_t kQuarter>
HWY_INLINE void prefetch_next(const float* row, std::size_t num_experts) {
  constexpr std::size_t kLine = 16;  // floats
  const float* const next = row + kLanes * num_experts;
  const std::size_t end = (kQuarter + 1) * num_experts / 4;
  for (std::size_t e = kQuarter * num_experts / 4; e < end; e += kLine) prefetch(next + e);
}

// Keys made of logits as they are read. One group.
class LogitKeys {
 public:
  LogitKeys(const float* const* rows, const KeyLayout& layout)
      : rows_(rows),
        id_bits_(layout.id_bits),
        num_vectors_(layout.num_vectors),
        padded_(layout.has_padding() ? num_vectors_ - 1 : num_vectors_),
        num_used_(layout.group_size - (num_vectors_ - 1) * kLanes),
        num_experts_(layout.num_experts),
        kept_bits_(layout.kept_bits),
        least_(hn::Set(IntTag(), std::numeric_limits<std::int32_t>::max())) {}

  std::size_t num_vectors() const { return num_vectors_; }
  // The least key read so far. Lanes past a row's last expert count too: they hold other rows'
  // logits or zeros.
  Ints least() const { return least_; }

  HWY_INLINE void start(std::size_t t) const { prefetch_next<0>(rows_[t], num_experts_); }

  HWY_INLINE Ints load(std::size_t t, std::size_t v) {
    constexpr IntTag d;
    const Ints bits = bits_of(hn::LoadU(FloatTag(), rows_[t] + v * kLanes));
    const Ints key = make_key(bits, kept_bits_, hn::Load(d, id_bits_ + v * kLanes));
    least_ = hn::Min(least_, key);
    if (v != padded_) return key;
    return hn::IfThenElse(hn::FirstN(d, num_used_), key, hn::Set(d, kNoKey));
  }

 private:
  const float* const* rows_;
  const std::int32_t* id_bits_;
  std::size_t num_vectors_, padded_, num_used_, num_experts_;
  std::int32_t kept_bits_;
  Ints least_;
};

// The same keys, kept for a second reading.
class KeptLogitKeys {
 public:
  // @param kept [kLanes, num_vectors, kLanes]
  KeptLogitKeys(const LogitKeys& keys, std::int32_t* kept) : keys_(keys), kept_(kept) {}

  std::size_t num_vectors() const { return keys_.num_vectors(); }
  Ints least() const { return keys_.least(); }
  HWY_INLINE void start(std::size_t t) const { keys_.start(t); }

  HWY_INLINE Ints load(std::size_t t, std::size_t v) {
    const Ints key = keys_.load(t, v);
    hn::Store(key, IntTag(), kept_ + (t * num_vectors() + v) * kLanes);
    return key;
  }

 private:
  LogitKeys keys_;
  std::int32_t* kept_;
};

// Bit i alone, for i = 0 to 31.
alignas(64) inline constexpr std::int32_t kBits[32] = {
    1 << 0,  1 << 1,  1 << 2,  1 << 3,
    1 << 4,  1 << 5,  1 << 6,  1 << 7,
    1 << 8,  1 << 9,  1 << 10, 1 << 11,
    1 << 12, 1 << 13, 1 << 14, 1 << 15,
    1 << 16, 1 << 17, 1 << 18, 1 << 19,
    1 << 20, 1 << 21, 1 << 22, 1 << 23,
    1 << 24, 1 << 25, 1 << 26, 1 << 27,
    1 << 28, 1 << 29, 1 << 30, std::numeric_limits<std::int32_t>::min()};

// Of kept keys, those of the experts in each token's set of candidates.
class CandidateKeys {
 public:
  // @param kept [kLanes, num_vectors, kLanes]
  // @param sets one per token, bit b of word w: expert 32 w + b
  CandidateKeys(const std::int32_t* kept, const std::uint32_t* const* sets, std::size_t num_vectors)
      : kept_(kept), sets_(sets), num_vectors_(num_vectors) {}

  std::size_t num_vectors() const { return num_vectors_; }
  void start(std::size_t) const {}

  HWY_INLINE Ints load(std::size_t t, std::size_t v) const {
    constexpr IntTag d;
    const auto word = static_cast<std::int32_t>(sets_[t][v * kLanes / 32]);
    const auto is_candidate = hn::TestBit(hn::Set(d, word), hn::Load(d, kBits + v * kLanes % 32));
    const Ints key = hn::Load(d, kept_ + (t * num_vectors_ + v) * kLanes);
    return hn::IfThenElse(is_candidate, key, hn::Set(d, kNoKey));
  }

 private:
  const std::int32_t* kept_;
  const std::uint32_t* const* sets_;
  std::size_t num_vectors_;
};

}  // namespace c2r::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // HWY_TARGET != HWY_SCALAR

#endif  // per-target include guard
