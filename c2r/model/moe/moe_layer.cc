// Computes one MoE layer: the gate and the shared expert here, the routed experts in RoutedExperts.
#include "c2r/model/moe/moe_layer.h"

#include <cmath>
#include <vector>

#include "c2r/core/error.h"

namespace c2r {
namespace {

// The gate's input and weights are the model's, so it is the model's fault if a logit is not
// finite, and not that of the caller.
Routing routing_of(std::int64_t moe_layer, const Router& router, MatrixView<const float> logits) {
  try {
    return router.route(logits);
  } catch (const Error& e) {
    C2R_THROW(kInvalidFile, "MoE layer {}: {}", moe_layer, e.what());
  }
}

}  // namespace

MoeLayer::MoeLayer(GroupedGemm& gemm, RoutedExperts& experts)
    : experts_(&experts), exact_gemm_(Arithmetic::kF32, gemm.pool()) {}

// W x, or W2 tanh(W1 x).
Matrix<float> MoeLayer::gate_logits(const MoeWeights& weights, MatrixView<const float> x) {
  Matrix<float> logits(x.rows(), weights.gate.rows());
  const GemmGroup first{.x = x, .weight = weights.gate, .out = logits};
  exact_gemm_.run({&first, 1});
  if (weights.second_gate.data() == nullptr) return logits;
  for (float& v : logits.all()) v = std::tanh(v);
  Matrix<float> second(logits.rows(), weights.second_gate.rows());
  const GemmGroup group{.x = logits, .weight = weights.second_gate, .out = second};
  exact_gemm_.run({&group, 1});
  return second;
}

Routing MoeLayer::run(std::int64_t moe_layer, const MoeWeights& weights, const Router& router,
                      MatrixView<const float> x, MatrixView<float> sum) {
  Routing routing = routing_of(moe_layer, router, gate_logits(weights, x));
  std::vector<ExpertRows> shared_experts;
  if (weights.shared) {
    shared_.reshape(x.rows(), x.cols());
    shared_gate_.reshape(x.rows(), 1);
    const GemmGroup gate{.x = x, .weight = weights.shared_gate, .out = shared_gate_};
    exact_gemm_.run({&gate, 1});
    shared_experts.push_back({&*weights.shared, x, shared_});
  }
  experts_->run({moe_layer, weights.experts, routing, x, sum, shared_experts});
  if (weights.shared) {
    exact_gemm_.pool().run(x.rows(), [&](std::int64_t t, int) {
      add_weighted(shared_.row(t), 1 / (1 + std::exp(-shared_gate_(t, 0))), sum.row(t));
    });
  }
  return routing;
}

}  // namespace c2r
