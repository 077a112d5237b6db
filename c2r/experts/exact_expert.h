// An expert's MLP and its gradients by the formula, in double: the reference for what is fast.
//
// With g = G x, u = U x and h = silu(g) * u the output is y = D h. Given dL/dy = dy:
//   dh = D^T dy           dD = dy h^T
//   du = dh * silu(g)     dU = du x^T
//   dg = dh * u * silu'(g)  with silu'(g) = s (1 + g (1 - s)), s = 1 / (1 + exp(-g))
//                         dG = dg x^T
//   dx = G^T dg + U^T du
#pragma once

#include <span>

#include "c2r/core/matrix.h"
#include "c2r/experts/expert_mlp.h"

namespace c2r {

/// The weights of an expert, or their gradients.
struct ExactExpert {
  Matrix<double> gate, up;  // [intermediate, hidden]
  Matrix<double> down;      // [hidden, intermediate]
};

/// The same weights; every stored type is exact in double.
ExactExpert exact_expert(const ExpertWeights& weights);
/// Zeros of the shape of `expert`.
ExactExpert zero_gradients(const ExactExpert& expert);

/// @param x [hidden] @param y [hidden], is overwritten
void exact_forward(const ExactExpert& expert, std::span<const double> x, std::span<double> y);

/// Adds what one row gives to the gradients.
/// @param x,dy [hidden], the row and the gradient of its output
/// @param dx [hidden] @param dweights of the shape of `expert`
void exact_backward(const ExactExpert& expert, std::span<const double> x,
                    std::span<const double> dy, std::span<double> dx, ExactExpert& dweights);

}  // namespace c2r
