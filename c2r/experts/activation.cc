#include "c2r/experts/activation.h"

#include <algorithm>
#include <cstddef>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "c2r/experts/activation.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h:
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace c2r::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using Floats = hn::ScalableTag<float>;

// Calls `step(first, count)` for each vector of `size` values; the last may be partial.
template <class Step>
HWY_INLINE void for_each_vector(std::size_t size, const Step& step) {
  const std::size_t lanes = hn::Lanes(Floats());
  for (std::size_t i = 0; i < size; i += lanes) step(i, std::min(lanes, size - i));
}

void silu_multiply_all(float* gate, const float* up, std::size_t size) {
  const Floats d;
  for_each_vector(size, [&](std::size_t i, std::size_t n) HWY_ATTR {
    const auto mask = hn::FirstN(d, n);
    const auto x = hn::MaskedLoad(mask, d, gate + i);
    const auto one = hn::Set(d, 1.0f);
    const auto silu = hn::Div(x, hn::Add(one, hn::Exp(d, hn::Neg(x))));
    hn::BlendedStore(hn::Mul(silu, hn::MaskedLoad(mask, d, up + i)), mask, d, gate + i);
  });
}

void softmax_all(float* values, std::size_t size) {
  const Floats d;
  auto max = hn::Set(d, -std::numeric_limits<float>::infinity());
  for_each_vector(size, [&](std::size_t i, std::size_t n) HWY_ATTR {
    const auto mask = hn::FirstN(d, n);
    max = hn::Max(max, hn::IfThenElse(mask, hn::MaskedLoad(mask, d, values + i), max));
  });
  max = hn::MaxOfLanes(d, max);
  auto sum = hn::Zero(d);
  for_each_vector(size, [&](std::size_t i, std::size_t n) HWY_ATTR {
    const auto mask = hn::FirstN(d, n);
    const auto x = hn::Sub(hn::MaskedLoad(mask, d, values + i), max);
    const auto e = hn::IfThenElseZero(mask, hn::Exp(d, x));
    sum = hn::Add(sum, e);
    hn::BlendedStore(e, mask, d, values + i);
  });
  const auto scale = hn::Div(hn::Set(d, 1.0f), hn::SumOfLanes(d, sum));
  for_each_vector(size, [&](std::size_t i, std::size_t n) HWY_ATTR {
    const auto mask = hn::FirstN(d, n);
    hn::BlendedStore(hn::Mul(hn::MaskedLoad(mask, d, values + i), scale), mask, d, values + i);
  });
}

}  // namespace c2r::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace c2r {

HWY_EXPORT(silu_multiply_all);
HWY_EXPORT(softmax_all);

void silu_multiply(std::span<float> gate, std::span<const float> up) {
  HWY_DYNAMIC_DISPATCH(silu_multiply_all)(gate.data(), up.data(), gate.size());
}

void softmax(std::span<float> values) {
  HWY_DYNAMIC_DISPATCH(softmax_all)(values.data(), values.size());
}

}  // namespace c2r
#endif  // HWY_ONCE
