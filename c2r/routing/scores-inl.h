// exp, sigmoid and softmax sums in vectors: compiled once per instruction set. The steps are those
// of exp.h, so the bits are too.
#if defined(C2R_ROUTING_SCORES_INTERNAL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef C2R_ROUTING_SCORES_INTERNAL_H_
#undef C2R_ROUTING_SCORES_INTERNAL_H_
#else
#define C2R_ROUTING_SCORES_INTERNAL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstddef>

#include "c2r/core/exp.h"
#include "c2r/routing/top_k-inl.h"

#if HWY_TARGET != HWY_SCALAR
HWY_BEFORE_NAMESPACE();
namespace c2r::HWY_NAMESPACE {

// x[i] = 2^(x[i] log2_base), kCount vectors together: each step of a single vector would wait for
// the result of the step before.
template <std::size_t kCount>
HWY_INLINE void power_bounded(Floats* x, float log2_base) {
  using namespace exp_constants;
  constexpr FloatTag d;
  constexpr IntTag di;
  const Floats factor = hn::Set(d, log2_base), round = hn::Set(d, kRound);
  Floats shifted[kCount], p[kCount];
  for (std::size_t i = 0; i < kCount; ++i) shifted[i] = hn::MulAdd(x[i], factor, round);
  for (std::size_t i = 0; i < kCount; ++i) {
    x[i] = hn::MulAdd(x[i], factor, hn::Sub(round, shifted[i]));
    p[i] = hn::MulAdd(hn::Set(d, kC5), x[i], hn::Set(d, kC4));
  }
  for (const float c : {kC3, kC2, kC1, 1.0f}) {
    for (std::size_t i = 0; i < kCount; ++i) p[i] = hn::MulAdd(p[i], x[i], hn::Set(d, c));
  }
  for (std::size_t i = 0; i < kCount; ++i) {
    const Ints exponent = hn::ShiftLeft<23>(hn::BitCast(di, shifted[i]));
    x[i] = hn::BitCast(d, hn::Add(hn::BitCast(di, p[i]), exponent));
  }
}

// x[i] = e^-x[i] for x[i] >= 0; for x[i] <= 87 if kIsBounded.
template <std::size_t kCount, bool kIsBounded = false>
HWY_INLINE void exp_of_negated(Floats* x) {
  using namespace exp_constants;
  constexpr FloatTag d;
  if constexpr (!kIsBounded) {
    for (std::size_t i = 0; i < kCount; ++i) x[i] = hn::Min(x[i], hn::Set(d, kMax));
  }
  power_bounded<kCount>(x, -kLog2e);
}

template <std::size_t kCount>
HWY_INLINE void sigmoid(Floats* x) {
  using namespace exp_constants;
  constexpr FloatTag d;
  for (std::size_t i = 0; i < kCount; ++i) {
    x[i] = hn::Min(hn::Max(x[i], hn::Set(d, -kMax)), hn::Set(d, kMax));
  }
  power_bounded<kCount>(x, -kLog2e);
  const Floats one = hn::Set(d, 1.0f);
  for (std::size_t i = 0; i < kCount; ++i) x[i] = hn::Div(one, hn::Add(one, x[i]));
}

// Lane t of the result is the sum of row t of `rows` [kLanes, kLanes], neighbours added first.
HWY_INLINE Floats sum_rows(float* rows) {
  constexpr FloatTag d;
  for (std::size_t num_pairs = kLanes / 2; num_pairs >= 1; num_pairs /= 2) {
    for (std::size_t pair = 0; pair < num_pairs; ++pair) {
      const Floats a = hn::Load(d, rows + (2 * pair) * kLanes);
      const Floats b = hn::Load(d, rows + (2 * pair + 1) * kLanes);
      hn::Store(hn::Add(hn::ConcatEven(d, b, a), hn::ConcatOdd(d, b, a)), d, rows + pair * kLanes);
    }
  }
  return hn::Load(d, rows);
}

// Adds exp(logit - shift) of kCount vectors from `row` on to the partial sums, of which vector v is
// lanes [v * kLanes, (v + 1) * kLanes). Lanes past the first `num_used` add nothing, if not all are
// used.
template <std::size_t kCount, bool kIsBounded, bool kAreAllUsed>
HWY_INLINE void add_exps(const float* row, std::size_t num_used, Floats shift, Floats* sums) {
  constexpr FloatTag d;
  constexpr std::size_t kVectors = 16 / kLanes;
  Floats terms[kCount];
  for (std::size_t v = 0; v < kCount; ++v) {
    terms[v] = hn::Sub(shift, hn::LoadU(d, row + v * kLanes));  // the instruction includes the load
  }
  exp_of_negated<kCount, kIsBounded>(terms);
  for (std::size_t v = 0; v < kCount; ++v) {
    if constexpr (!kAreAllUsed) {
      const auto is_used = hn::FirstN(d, num_used - std::min(num_used, v * kLanes));
      terms[v] = hn::IfThenElseZero(is_used, terms[v]);
    }
    sums[v % kVectors] = hn::Add(sums[v % kVectors], terms[v]);
  }
}

// The 16 partial sums of exp(logit - shift) over one token's experts, folded to kLanes.
// kIsBounded: no logit is more than 87 below `shift`.
// @param row readable up to a multiple of 16 experts
template <bool kIsBounded>
HWY_INLINE Floats partial_sums(const float* row, std::size_t num_experts, float shift) {
  constexpr FloatTag d;
  constexpr std::size_t kVectors = 16 / kLanes;
  constexpr std::size_t kMany = 4;  // vectors: what 16 registers hold the steps of
  const Floats shifts = hn::Set(d, shift);
  Floats sums[kVectors];
  for (Floats& sum : sums) sum = hn::Zero(d);
  std::size_t e = 0;
  for (; e + kMany * kLanes <= num_experts; e += kMany * kLanes) {
    add_exps<kMany, kIsBounded, true>(row + e, 0, shifts, sums);
  }
  for (; e < num_experts; e += 16) {
    add_exps<kVectors, kIsBounded, false>(row + e, num_experts - e, shifts, sums);
  }
  for (std::size_t n = kVectors / 2; n >= 1; n /= 2) {
    for (std::size_t v = 0; v < n; ++v) {
      const Floats a = sums[2 * v], b = sums[2 * v + 1];
      sums[v] = hn::Add(hn::ConcatEven(d, b, a), hn::ConcatOdd(d, b, a));
    }
  }
  return sums[0];
}

}  // namespace c2r::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // HWY_TARGET != HWY_SCALAR

#endif  // per-target include guard
