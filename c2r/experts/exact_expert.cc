// The formulas of an expert's forward and backward pass, value by value, in double.
#include "c2r/experts/exact_expert.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace c2r {
namespace {

using Values = std::vector<double>;

Matrix<double> exact_weights(const RowsView& view) {
  Matrix<double> weights(view.rows(), view.cols());
  std::vector<float> row(static_cast<std::size_t>(view.cols()));
  for (std::int64_t output = 0; output < view.rows(); ++output) {
    view.read_row(output, row);
    std::ranges::copy(row, weights.row(output).begin());
  }
  return weights;
}

// W x.
Values times(const Matrix<double>& weights, std::span<const double> x) {
  Values y(static_cast<std::size_t>(weights.rows()));
  for (std::int64_t r = 0; r < weights.rows(); ++r) {
    for (std::int64_t c = 0; c < weights.cols(); ++c) {
      y[static_cast<std::size_t>(r)] += weights(r, c) * x[static_cast<std::size_t>(c)];
    }
  }
  return y;
}

// sum += W^T y.
void add_transposed(const Matrix<double>& weights, std::span<const double> y,
                    std::span<double> sum) {
  for (std::int64_t r = 0; r < weights.rows(); ++r) {
    for (std::int64_t c = 0; c < weights.cols(); ++c) {
      sum[static_cast<std::size_t>(c)] += weights(r, c) * y[static_cast<std::size_t>(r)];
    }
  }
}

// dW += dy x^T.
void add_outer(std::span<const double> dy, std::span<const double> x, Matrix<double>& dweights) {
  for (std::int64_t r = 0; r < dweights.rows(); ++r) {
    for (std::int64_t c = 0; c < dweights.cols(); ++c) {
      dweights(r, c) += dy[static_cast<std::size_t>(r)] * x[static_cast<std::size_t>(c)];
    }
  }
}

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

}  // namespace

ExactExpert exact_expert(const ExpertWeights& weights) {
  return {exact_weights(weights.gate), exact_weights(weights.up), exact_weights(weights.down)};
}

ExactExpert zero_gradients(const ExactExpert& expert) {
  return {{expert.gate.rows(), expert.gate.cols()},
          {expert.up.rows(), expert.up.cols()},
          {expert.down.rows(), expert.down.cols()}};
}

void exact_forward(const ExactExpert& expert, std::span<const double> x, std::span<double> y) {
  Values h = times(expert.gate, x);
  const Values u = times(expert.up, x);
  for (std::size_t i = 0; i < h.size(); ++i) h[i] *= sigmoid(h[i]) * u[i];
  std::ranges::copy(times(expert.down, h), y.begin());
}

void exact_backward(const ExactExpert& expert, std::span<const double> x,
                    std::span<const double> dy, std::span<double> dx, ExactExpert& dweights) {
  const Values g = times(expert.gate, x), u = times(expert.up, x);
  Values h(g.size()), dh(g.size()), dg(g.size()), du(g.size());
  add_transposed(expert.down, dy, dh);
  for (std::size_t i = 0; i < g.size(); ++i) {
    const double s = sigmoid(g[i]), silu = g[i] * s;
    h[i] = silu * u[i];
    du[i] = dh[i] * silu;
    dg[i] = dh[i] * u[i] * s * (1 + g[i] * (1 - s));
  }
  add_outer(dy, h, dweights.down);
  add_outer(dg, x, dweights.gate);
  add_outer(du, x, dweights.up);
  add_transposed(expert.gate, dg, dx);
  add_transposed(expert.up, du, dx);
}

}  // namespace c2r
