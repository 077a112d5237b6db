// The naive MoE layer in double and its gradients: the reference of every layer with a backward
// pass.
#pragma once

#include <vector>

#include "c2r/core/ids.h"
#include "c2r/core/matrix.h"
#include "c2r/experts/exact_expert.h"

namespace c2r::testing {

/// The tokens of one rank.
struct RankTokens {
  Matrix<double> x, dy;    // [num_tokens, hidden]
  Matrix<double> weights;  // [num_tokens, top_k]
  Matrix<ExpertId> topk_idx;
};

struct ExactLayer {
  std::vector<ExactExpert> experts;
  std::vector<RankTokens> ranks;
};

/// As the layer's parts. `y` is what the layer gives.
struct ExactGradients {
  std::vector<Matrix<double>> y, dx, dweights;  // [ep_size]
  std::vector<ExactExpert> dexperts;
};

inline ExactGradients no_gradients(const ExactLayer& layer) {
  ExactGradients gradients;
  for (const RankTokens& tokens : layer.ranks) {
    gradients.y.emplace_back(tokens.x.rows(), tokens.x.cols());
    gradients.dx.emplace_back(tokens.x.rows(), tokens.x.cols());
    gradients.dweights.emplace_back(tokens.weights.rows(), tokens.weights.cols());
  }
  for (const ExactExpert& expert : layer.experts) {
    gradients.dexperts.push_back(zero_gradients(expert));
  }
  return gradients;
}

/// Token by token, choice by choice: y = sum of w E(x).
inline ExactGradients naive_gradients(const ExactLayer& layer) {
  ExactGradients gradients = no_gradients(layer);
  for (std::size_t rank = 0; rank < layer.ranks.size(); ++rank) {
    const RankTokens& tokens = layer.ranks[rank];
    std::vector<double> y(std::size_t(tokens.x.cols())), weighted = y;
    for (std::int64_t t = 0; t < tokens.x.rows(); ++t) {
      const auto x = tokens.x.row(t), dy = tokens.dy.row(t);
      for (std::int64_t k = 0; k < tokens.weights.cols(); ++k) {
        const ExpertId expert = tokens.topk_idx(t, k);
        if (expert == kNoExpert) continue;
        exact_forward(layer.experts[index(expert)], x, y);
        for (std::size_t c = 0; c < y.size(); ++c) {
          gradients.y[rank].row(t)[c] += tokens.weights(t, k) * y[c];
          gradients.dweights[rank](t, k) += y[c] * dy[c];
          weighted[c] = tokens.weights(t, k) * dy[c];
        }
        exact_backward(layer.experts[index(expert)], x, weighted, gradients.dx[rank].row(t),
                       gradients.dexperts[index(expert)]);
      }
    }
  }
  return gradients;
}

}  // namespace c2r::testing
