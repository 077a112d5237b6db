// One MoE layer in one process: route, group rows by expert, compute, add up.
#pragma once

#include "c2r/core/matrix.h"
#include "c2r/experts/expert_mlp.h"
#include "c2r/model/weights.h"
#include "c2r/routing/policy.h"

namespace c2r {

/// Computes MoE layers and keeps the memory between calls: two rows for each choice of a token.
class MoeLayer {
 public:
  /// @param gemm must outlive this object. Gates are computed in f32, whatever its arithmetic.
  explicit MoeLayer(GroupedGemm& gemm);

  /// Adds to each row of `sum` what the layer gives for the row of `x`, as reference_moe() does:
  /// the experts in the order of choice, best first, then the shared expert.
  /// @param x [num_tokens, hidden], normalized @param sum [num_tokens, hidden], not `x`
  /// @returns what was chosen
  /// @throws Error(kInvalidArgument) if a logit is not finite
  Routing run(const MoeWeights& weights, const Router& router, MatrixView<const float> x,
              MatrixView<float> sum);

 private:
  Matrix<float> gate_logits(const MoeWeights& weights, MatrixView<const float> x);
  void compute(const MoeWeights& weights, std::span<const std::int64_t> offsets,
               MatrixView<const float> x);

  GroupedGemm* gemm_;
  GroupedGemm exact_gemm_;
  ExpertMlps mlps_;
  Matrix<float> in_;           // [num_tokens * top_k, hidden], rows by expert
  Matrix<float> out_;          // the same, and [num_tokens, hidden] of the shared expert
  Matrix<float> shared_gate_;  // [num_tokens, 1], or none
};

}  // namespace c2r
