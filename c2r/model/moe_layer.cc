#include "c2r/model/moe_layer.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace c2r {
namespace {

void add(std::span<const float> from, float weight, std::span<float> to) {
  for (std::size_t i = 0; i < to.size(); ++i) to[i] += weight * from[i];
}

// Rows by expert: expert e has [offsets[e], offsets[e + 1]), in the order of its tokens.
struct Grouping {
  std::vector<std::int64_t> offsets;  // [num_experts + 1]
  Matrix<std::int64_t> row_of;        // [num_tokens, top_k]
};

Grouping group_by_expert(const Routing& routing) {
  Grouping grouping{
      .offsets = std::vector<std::int64_t>(static_cast<std::size_t>(routing.num_experts) + 1),
      .row_of = {routing.num_tokens(), routing.top_k()}};
  for (const ExpertId e : routing.topk_idx.all()) ++grouping.offsets[index(e) + 1];
  for (std::size_t e = 1; e < grouping.offsets.size(); ++e) {
    grouping.offsets[e] += grouping.offsets[e - 1];
  }
  std::vector<std::int64_t> next(grouping.offsets.begin(), grouping.offsets.end() - 1);
  for (std::int64_t t = 0; t < routing.num_tokens(); ++t) {
    for (std::int64_t k = 0; k < routing.top_k(); ++k) {
      grouping.row_of(t, k) = next[index(routing.topk_idx(t, k))]++;
    }
  }
  return grouping;
}

}  // namespace

MoeLayer::MoeLayer(GroupedGemm& gemm)
    : gemm_(&gemm), exact_gemm_(Arithmetic::kF32, gemm.pool()), mlps_(gemm) {}

// W x, or W2 tanh(W1 x).
Matrix<float> MoeLayer::gate_logits(const MoeWeights& weights, MatrixView<const float> x) {
  Matrix<float> logits(x.rows(), weights.gate.num_outputs);
  const GemmGroup first{.x = x, .weight = weights.gate, .out = logits};
  exact_gemm_.run({&first, 1});
  if (weights.second_gate.data == nullptr) return logits;
  for (float& v : logits.all()) v = std::tanh(v);
  Matrix<float> second(logits.rows(), weights.second_gate.num_outputs);
  const GemmGroup group{.x = logits, .weight = weights.second_gate, .out = second};
  exact_gemm_.run({&group, 1});
  return second;
}

// Fills out_ and shared_gate_ from in_ and x.
void MoeLayer::compute(const MoeWeights& weights, std::span<const std::int64_t> offsets,
                       MatrixView<const float> x) {
  const std::int64_t num_rows = in_.rows(), num_shared = weights.shared ? x.rows() : 0;
  out_.reshape(num_rows + num_shared, x.cols());
  shared_gate_.reshape(num_shared, 1);
  const MatrixView<const float> in = in_;
  const MatrixView<float> out = out_;
  std::vector<ExpertRows> groups;
  if (weights.shared) {
    groups.push_back({&*weights.shared, x, out.rows(num_rows, num_rows + num_shared)});
    const GemmGroup gate{.x = x, .weight = weights.shared_gate, .out = shared_gate_};
    exact_gemm_.run({&gate, 1});
  }
  for (std::size_t e = 0; e < weights.experts.size(); ++e) {
    groups.push_back({&weights.experts[e], in.rows(offsets[e], offsets[e + 1]),
                      out.rows(offsets[e], offsets[e + 1])});
  }
  mlps_.run(groups);
}

Routing MoeLayer::run(const MoeWeights& weights, const Router& router, MatrixView<const float> x,
                      MatrixView<float> sum) {
  const Matrix<float> logits = gate_logits(weights, x);
  Routing routing = router.route(logits);
  const Grouping grouping = group_by_expert(routing);
  in_.reshape(routing.num_tokens() * routing.top_k(), x.cols());
  gemm_->pool().run(x.rows(), [&](std::int64_t t, int) {
    for (const std::int64_t row : grouping.row_of.row(t)) {
      std::ranges::copy(x.row(t), in_.row(row).begin());
    }
  });
  compute(weights, grouping.offsets, x);
  gemm_->pool().run(x.rows(), [&](std::int64_t t, int) {
    for (std::int64_t k = 0; k < routing.top_k(); ++k) {
      add(out_.row(grouping.row_of(t, k)), routing.topk_weights(t, k), sum.row(t));
    }
    if (weights.shared) {
      add(out_.row(in_.rows() + t), 1 / (1 + std::exp(-shared_gate_(t, 0))), sum.row(t));
    }
  });
  return routing;
}

}  // namespace c2r
