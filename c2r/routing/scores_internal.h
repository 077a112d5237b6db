// exp, sigmoid and softmax sums in vectors: compiled once per instruction set. The steps are those
// of exp_internal.h, so the bits are too.
#if defined(C2R_ROUTING_SCORES_INTERNAL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef C2R_ROUTING_SCORES_INTERNAL_H_
#undef C2R_ROUTING_SCORES_INTERNAL_H_
#else
#define C2R_ROUTING_SCORES_INTERNAL_H_
#endif

#include <hwy/highway.h>

#include <cstddef>
#include <cstdint>

#include "c2r/routing/exp_internal.h"
#include "c2r/routing/top_k_internal.h"

#if HWY_TARGET != HWY_SCALAR
HWY_BEFORE_NAMESPACE();
namespace c2r::HWY_NAMESPACE {

HWY_INLINE Floats exp_bounded(Floats x) {
  using namespace exp_constants;
  constexpr FloatTag d;
  const Floats shifted = hn::Add(hn::Mul(x, hn::Set(d, kLog2e)), hn::Set(d, kRound));
  const Floats n = hn::Sub(shifted, hn::Set(d, kRound));
  const Floats r =
      hn::Sub(hn::Sub(x, hn::Mul(n, hn::Set(d, kLn2High))), hn::Mul(n, hn::Set(d, kLn2Low)));
  Floats p = hn::Set(d, kC6);
  p = hn::Add(hn::Mul(p, r), hn::Set(d, kC5));
  p = hn::Add(hn::Mul(p, r), hn::Set(d, kC4));
  p = hn::Add(hn::Mul(p, r), hn::Set(d, kC3));
  p = hn::Add(hn::Mul(p, r), hn::Set(d, kC2));
  p = hn::Add(hn::Mul(p, r), hn::Set(d, 1.0f));
  p = hn::Add(hn::Mul(p, r), hn::Set(d, 1.0f));
  constexpr IntTag di;
  const Ints exponent = hn::ShiftLeft<23>(hn::BitCast(di, shifted));
  return hn::BitCast(d, hn::Add(hn::BitCast(di, p), exponent));
}

HWY_INLINE Floats exp_of_negative(Floats x) {
  const auto is_tiny = hn::Lt(x, hn::Set(FloatTag(), -exp_constants::kMax));
  return hn::IfThenZeroElse(is_tiny, exp_bounded(x));
}

HWY_INLINE Floats sigmoid(Floats x) {
  constexpr FloatTag d;
  const Floats one = hn::Set(d, 1.0f), max = hn::Set(d, exp_constants::kMax);
  const Floats bounded = hn::Min(hn::Max(x, hn::Neg(max)), max);
  return hn::Div(one, hn::Add(one, exp_bounded(hn::Neg(bounded))));
}

// Lane t of the result is the sum of row t of `rows` [kLanes, kLanes], neighbours first.
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

// The 16 partial sums of exp(logit - shift) over one token's experts, folded to kLanes.
// @param row may be read up to a whole vector past its last expert
HWY_INLINE Floats partial_sums(const float* row, std::size_t num_experts, float shift) {
  constexpr FloatTag d;
  constexpr std::size_t kVectors = 16 / kLanes;
  const Floats shifts = hn::Set(d, shift);
  Floats sums[kVectors];
  for (Floats& sum : sums) sum = hn::Zero(d);
  std::size_t e = 0;
  for (; e + 16 <= num_experts; e += 16) {
    for (std::size_t v = 0; v < kVectors; ++v) {
      const Floats logits = hn::LoadU(d, row + e + v * kLanes);
      sums[v] = hn::Add(sums[v], exp_of_negative(hn::Sub(logits, shifts)));
    }
  }
  for (std::size_t v = 0; v < kVectors && e + v * kLanes < num_experts; ++v) {
    const Floats logits = hn::LoadU(d, row + e + v * kLanes);
    const auto is_expert = hn::FirstN(d, num_experts - e - v * kLanes);
    const Floats terms = exp_of_negative(hn::Sub(logits, shifts));
    sums[v] = hn::Add(sums[v], hn::IfThenElseZero(is_expert, terms));
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
