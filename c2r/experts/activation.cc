// SiLU and softmax with vectors, compiled once for each instruction set by Highway.
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

#include "c2r/core/error.h"

HWY_BEFORE_NAMESPACE();
namespace c2r::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using Floats = hn::ScalableTag<float>;

// Calls `step` with the address of each vector of `values`. If the last vector is not full, `step`
// gets a copy of it that is padded with `rest`, and the values are copied back.
template <class Step>
HWY_INLINE void for_each_vector(float* values, std::size_t size, float rest, const Step& step) {
  const Floats d;
  const std::size_t lanes = hn::Lanes(d);
  std::size_t i = 0;
  for (; i + lanes <= size; i += lanes) step(values + i);
  if (i == size) return;
  HWY_ALIGN float last[hn::MaxLanes(d)];
  std::fill(std::copy(values + i, values + size, last), std::end(last), rest);
  step(last);
  std::copy_n(last, size - i, values + i);
}

HWY_INLINE void silu_multiply_vector(float* gate, const float* up) {
  const Floats d;
  const auto x = hn::LoadU(d, gate);
  // Highway's exp is defined up to 104. From there on exp is infinite and silu is zero.
  const auto exponent = hn::Min(hn::Neg(x), hn::Set(d, 104.0f));
  const auto silu = hn::Div(x, hn::Add(hn::Set(d, 1.0f), hn::Exp(d, exponent)));
  hn::StoreU(hn::Mul(silu, hn::LoadU(d, up)), d, gate);
}

void silu_multiply_all(float* gate, const float* up, std::size_t size) {
  const Floats d;
  const std::size_t lanes = hn::Lanes(d);
  std::size_t i = 0;
  for (; i + lanes <= size; i += lanes) silu_multiply_vector(gate + i, up + i);
  HWY_ALIGN float last_gate[hn::MaxLanes(d)] = {}, last_up[hn::MaxLanes(d)] = {};
  std::copy(gate + i, gate + size, last_gate);
  std::copy(up + i, up + size, last_up);
  silu_multiply_vector(last_gate, last_up);
  std::copy_n(last_gate, size - i, gate + i);
}

void softmax_all(float* values, std::size_t size) {
  constexpr float kMasked = -std::numeric_limits<float>::infinity();
  const Floats d;
  auto max = hn::Set(d, kMasked);
  for_each_vector(values, size, kMasked,
                  [&](float* at) HWY_ATTR { max = hn::Max(max, hn::LoadU(d, at)); });
  max = hn::MaxOfLanes(d, max);
  auto sum = hn::Zero(d);
  for_each_vector(values, size, kMasked, [&](float* at) HWY_ATTR {
    const auto e = hn::Exp(d, hn::Sub(hn::LoadU(d, at), max));
    sum = hn::Add(sum, e);
    hn::StoreU(e, d, at);
  });
  const auto scale = hn::Div(hn::Set(d, 1.0f), hn::SumOfLanes(d, sum));
  for_each_vector(values, size, 0.0f,
                  [&](float* at) HWY_ATTR { hn::StoreU(hn::Mul(hn::LoadU(d, at), scale), d, at); });
}

}  // namespace c2r::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace c2r {

HWY_EXPORT(silu_multiply_all);
HWY_EXPORT(softmax_all);

void silu_multiply(std::span<float> gate, std::span<const float> up) {
  C2R_REQUIRE(gate.size() == up.size(), kInvalidArgument,
              "{} gate values cannot be multiplied by {} values", gate.size(), up.size());
  HWY_DYNAMIC_DISPATCH(silu_multiply_all)(gate.data(), up.data(), gate.size());
}

void softmax(std::span<float> values) {
  HWY_DYNAMIC_DISPATCH(softmax_all)(values.data(), values.size());
}

}  // namespace c2r
#endif  // HWY_ONCE
