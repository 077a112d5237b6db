// Computes the MLPs of many experts with two calls of GroupedGemm, and the same by the formula.
#include "c2r/experts/expert_mlp.h"

#include <algorithm>
#include <cmath>

#include "c2r/core/error.h"
#include "c2r/experts/activation.h"

namespace c2r {
namespace {

void check_expert_rows(const ExpertRows& group) {
  C2R_REQUIRE(group.expert != nullptr, kInvalidArgument, "{} rows have no expert",
              group.out.rows());
  const auto& [gate, up, down] = *group.expert;
  C2R_REQUIRE(down.cols() == gate.rows(), kInvalidArgument,
              "an expert's gate has {} outputs, but its down projection {} inputs", gate.rows(),
              down.cols());
  C2R_REQUIRE(up.rows() == gate.rows() && up.cols() == gate.cols(), kInvalidArgument,
              "an expert's gate is [{}, {}], but its up projection [{}, {}]", gate.rows(),
              gate.cols(), up.rows(), up.cols());
  C2R_REQUIRE(group.x.num_rows() == group.out.rows() && group.x.cols() == gate.cols() &&
                  group.out.cols() == down.rows(),
              kInvalidArgument,
              "an expert of hidden size {} cannot compute rows [{}, {}] into rows [{}, {}]",
              gate.cols(), group.x.num_rows(), group.x.cols(), group.out.rows(), group.out.cols());
  group.x.check();
}

}  // namespace

void ExpertMlps::run(std::span<const ExpertRows> groups) {
  std::int64_t num_values = 0;
  for (const ExpertRows& group : groups) {
    check_expert_rows(group);
    num_values += group.out.rows() * group.expert->intermediate();
  }
  if (std::ssize(gate_) < num_values) {
    gate_.resize(static_cast<std::size_t>(num_values));
    up_.resize(static_cast<std::size_t>(num_values));
  }

  std::vector<GemmGroup> inner, outer;
  std::int64_t offset = 0;
  for (const auto& [expert, x, out] : groups) {
    const MatrixView gate(gate_.data() + offset, out.rows(), expert->intermediate());
    const MatrixView up(up_.data() + offset, out.rows(), expert->intermediate());
    inner.push_back({.x = x, .weight = expert->gate, .out = gate});
    inner.push_back({.x = x, .weight = expert->up, .out = up});
    outer.push_back({.x = gate, .weight = expert->down, .out = out});
    offset += out.rows() * expert->intermediate();
  }
  gemm_->run(inner);
  constexpr std::int64_t kValuesPerTask = 1 << 14;
  gemm_->pool().run(
      (num_values + kValuesPerTask - 1) / kValuesPerTask, [&](std::int64_t task, int) {
        const auto first = static_cast<std::size_t>(task * kValuesPerTask);
        const auto count =
            static_cast<std::size_t>(std::min(kValuesPerTask, num_values - task * kValuesPerTask));
        silu_multiply(std::span(gate_).subspan(first, count), std::span(up_).subspan(first, count));
      });
  gemm_->run(outer);
}

void run_experts_reference(std::span<const ExpertRows> groups) {
  const auto dot = [](const RowsView& w, std::int64_t output, std::span<const float> x) {
    std::vector<float> weights(x.size());
    w.read_row(output, weights);
    double sum = 0;
    for (std::size_t i = 0; i < x.size(); ++i) sum += double{weights[i]} * double{x[i]};
    return sum;
  };
  for (const ExpertRows& group : groups) {
    check_expert_rows(group);
    const auto& [expert, x, out] = group;
    std::vector<float> inner(static_cast<std::size_t>(expert->intermediate()));
    std::vector<float> input(static_cast<std::size_t>(x.cols()));
    for (std::int64_t row = 0; row < out.rows(); ++row) {
      x.read_row(row, input);
      for (std::size_t i = 0; i < inner.size(); ++i) {
        const double gate = dot(expert->gate, static_cast<std::int64_t>(i), input);
        const double up = dot(expert->up, static_cast<std::int64_t>(i), input);
        inner[i] = static_cast<float>(gate / (1 + std::exp(-gate)) * up);
      }
      for (std::int64_t h = 0; h < out.cols(); ++h) {
        out(row, h) = static_cast<float>(dot(expert->down, h, inner));
      }
    }
  }
}

}  // namespace c2r
