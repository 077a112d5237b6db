// One MoE layer: gate and route, the chosen experts, the shared expert.
#pragma once

#include "c2r/core/matrix.h"
#include "c2r/experts/expert_mlp.h"
#include "c2r/model/routed_experts.h"
#include "c2r/model/weights.h"
#include "c2r/routing/policy.h"

namespace c2r {

/// Computes MoE layers and keeps the memory between calls: a row of the shared expert a token.
class MoeLayer {
 public:
  /// @param gemm,experts must outlive this object. Gates are computed in f32, whatever the
  /// arithmetic.
  MoeLayer(GroupedGemm& gemm, RoutedExperts& experts);

  /// Adds to each row of `sum` what the `moe_layer`-th layer gives for the row of `x`, as
  /// reference_moe() does: the routed experts, then the shared expert.
  /// @param x [num_tokens, hidden], normalized @param sum [num_tokens, hidden], not `x`
  /// @returns what was chosen
  /// @throws Error(kInvalidArgument) if a logit is not finite
  Routing run(std::int64_t moe_layer, const MoeWeights& weights, const Router& router,
              MatrixView<const float> x, MatrixView<float> sum);

 private:
  Matrix<float> gate_logits(const MoeWeights& weights, MatrixView<const float> x);

  RoutedExperts* experts_;
  GroupedGemm exact_gemm_;
  Matrix<float> shared_;       // [num_tokens, hidden], or none
  Matrix<float> shared_gate_;  // [num_tokens, 1], or none
};

}  // namespace c2r
