// The functions between the products of a layer, with vectors.
#pragma once

#include <span>

namespace c2r {

/// gate[i] = silu(gate[i]) * up[i], where silu(x) = x / (1 + exp(-x)). As many as each other.
/// exp is Highway's, within 1 ulp; where it is infinite, from x = -104 on, the result is -0.
void silu_multiply(std::span<float> gate, std::span<const float> up);

/// values[i] = exp(values[i] - max) / sum; -infinity becomes 0. At least one must be finite.
void softmax(std::span<float> values);

}  // namespace c2r
