// The elementwise functions between the matrix products of a layer: SiLU and softmax.
#pragma once

#include <span>

namespace c2r {

/// gate[i] = silu(gate[i]) * up[i], where silu(x) = x / (1 + exp(-x)). `exp` is Highway's, within 1
/// ulp. For x <= -104, where exp(-x) is infinite, silu(x) is -0.
/// @throws Error(kInvalidArgument) if `gate` and `up` differ in size
void silu_multiply(std::span<float> gate, std::span<const float> up);

/// values[i] = exp(values[i] - max) / sum over j of exp(values[j] - max). A value of -infinity,
/// which masks, becomes 0. At least one value must be finite, or all become NaN.
void softmax(std::span<float> values);

}  // namespace c2r
