// One MoE layer: gate, routing, routed experts, and shared expert.
#pragma once

#include "c2r/core/matrix.h"
#include "c2r/experts/expert_mlp.h"
#include "c2r/model/moe/routed_experts.h"
#include "c2r/model/weights.h"
#include "c2r/routing/policy.h"

namespace c2r {

/// Computes MoE layers. Memory, kept between calls: hidden + 1 floats for each token, if there is a
/// shared expert.
class MoeLayer {
 public:
  /// @param gemm,experts must outlive this object. Gates are computed in f32 with any arithmetic of
  ///        `gemm`.
  MoeLayer(GroupedGemm& gemm, RoutedExperts& experts);

  /// Adds the output of the `moe_layer`-th MoE layer for each row of `x` to the same row of `sum`,
  /// as reference_moe() does: first the routed experts, then the shared expert.
  /// @param x [num_tokens, hidden], normalized
  /// @param sum [num_tokens, hidden], another matrix than `x`
  /// @returns the routing of the tokens
  /// @throws Error(kInvalidFile), naming the layer, if a logit is not finite
  Routing run(std::int64_t moe_layer, const MoeWeights& weights, const Router& router,
              MatrixView<const float> x, MatrixView<float> sum);

 private:
  Matrix<float> gate_logits(const MoeWeights& weights, MatrixView<const float> x);

  RoutedExperts* experts_;
  GroupedGemm exact_gemm_;
  Matrix<float> shared_;       // [num_tokens, hidden], outputs of the shared expert, if any
  Matrix<float> shared_gate_;  // [num_tokens, 1], its gate before the sigmoid, if any
};

}  // namespace c2r
