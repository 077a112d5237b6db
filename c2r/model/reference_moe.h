// A whole MoE layer, naively, in one file: start here.
#pragma once

#include "c2r/core/matrix.h"
#include "c2r/model/weights.h"
#include "c2r/routing/policy.h"

namespace c2r {

/// What the layer adds to each token: gate, choice, experts, weighted sum, shared expert; token by
/// token, value by value, with sums in double. The decoder's layer is compared with this.
/// @param x [num_tokens, hidden], normalized
Matrix<float> reference_moe(const MoeWeights& weights, const RoutingPolicy& policy,
                            MatrixView<const float> x);

}  // namespace c2r
