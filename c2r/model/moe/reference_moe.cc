// The MoE layer by its definition, value by value, with sums in double.
#include "c2r/model/moe/reference_moe.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace c2r {
namespace {

using Vector = std::vector<double>;

Vector multiply(const RowsView& w, const Vector& x) {
  Vector out(static_cast<std::size_t>(w.rows()));  // read_row() checks the size of x
  std::vector<float> row(x.size());
  for (std::size_t o = 0; o < out.size(); ++o) {
    w.read_row(static_cast<std::int64_t>(o), row);
    for (std::size_t i = 0; i < x.size(); ++i) out[o] += double{row[i]} * x[i];
  }
  return out;
}

double logistic(double x) {
  return 1 / (1 + std::exp(-x));
}

Vector expert(const ExpertWeights& w, const Vector& x) {
  Vector inner = multiply(w.gate, x);
  const Vector up = multiply(w.up, x);
  for (std::size_t i = 0; i < inner.size(); ++i) inner[i] *= logistic(inner[i]) * up[i];
  return multiply(w.down, inner);
}

Vector gate(const MoeWeights& w, const Vector& x) {
  Vector logits = multiply(w.gate, x);
  if (w.second_gate.data() == nullptr) return logits;
  for (double& v : logits) v = std::tanh(v);
  return multiply(w.second_gate, logits);
}

// The best expert, then the best experts among its candidates; ties go to the lower id.
std::vector<std::size_t> choose(const Vector& logits, const RoutingPolicy& policy) {
  std::vector<std::size_t> order(logits.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, std::ranges::greater{}, [&](std::size_t e) { return logits[e]; });
  if (policy.constraint) {
    const auto& [top_t, collaborators] = *policy.constraint;
    const auto list = collaborators.row(static_cast<std::int64_t>(order[0]))
                          .first(static_cast<std::size_t>(top_t));
    const std::size_t best = order[0];
    std::erase_if(order, [&](std::size_t e) {
      return e != best && std::ranges::count(list, ExpertId{static_cast<std::int32_t>(e)}) == 0;
    });
  }
  order.resize(static_cast<std::size_t>(policy.top_k));
  return order;
}

// The weights of the chosen experts: softmax over all or over the chosen, depending on the policy.
Vector weigh(const Vector& logits, const std::vector<std::size_t>& chosen,
             const RoutingPolicy& policy) {
  double all = 0, sum = 0;
  for (const double v : logits) all += std::exp(v - logits[chosen[0]]);
  Vector weights;
  for (const std::size_t e : chosen) weights.push_back(std::exp(logits[e] - logits[chosen[0]]));
  for (const double v : weights) sum += v;
  const bool is_over_chosen =
      policy.scoring == Scoring::kSoftmaxOverChosen || policy.norm_topk_prob;
  for (double& v : weights) v *= double{policy.scale} / (is_over_chosen ? sum : all);
  return weights;
}

}  // namespace

Matrix<float> reference_moe(const MoeWeights& weights, const RoutingPolicy& policy,
                            MatrixView<const float> x) {
  Matrix<float> out(x.rows(), x.cols());
  for (std::int64_t t = 0; t < x.rows(); ++t) {
    const Vector token(x.row(t).begin(), x.row(t).end());
    const Vector logits = gate(weights, token);
    const auto chosen = choose(logits, policy);
    const Vector shares = weigh(logits, chosen, policy);
    Vector sum(token.size());
    const auto add = [&](const Vector& values, double share) {
      for (std::size_t h = 0; h < sum.size(); ++h) sum[h] += share * values[h];
    };
    for (std::size_t k = 0; k < chosen.size(); ++k) {
      add(expert(weights.experts[chosen[k]], token), shares[k]);
    }
    if (weights.shared) {
      add(expert(*weights.shared, token), logistic(multiply(weights.shared_gate, token)[0]));
    }
    std::ranges::transform(sum, out.row(t).begin(), [](double v) { return static_cast<float>(v); });
  }
  return out;
}

}  // namespace c2r
