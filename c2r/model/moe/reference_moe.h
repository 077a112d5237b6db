// The reference of an MoE layer: the whole layer by its definition, in one file.
#pragma once

#include "c2r/core/matrix.h"
#include "c2r/model/weights.h"
#include "c2r/routing/policy.h"

namespace c2r {

/// Computes gate, choice, experts, weighted sum and shared expert token by token and value by
/// value, with sums in double. Tests compare the layer of the decoder with this.
/// @param x [num_tokens, hidden], normalized
Matrix<float> reference_moe(const MoeWeights& weights, const RoutingPolicy& policy,
                            MatrixView<const float> x);

}  // namespace c2r
