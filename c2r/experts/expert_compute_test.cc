// Checks the CPU experts, forward and backward, against exact experts and finite differences.
#include "c2r/experts/expert_compute.h"

#include <gtest/gtest.h>

#include <deque>
#include <random>

#include "c2r/core/testing.h"
#include "c2r/experts/testing_internal.h"

namespace c2r {
namespace {

using testing::error_of;
using testing::random_matrix;
using testing::RandomWeights;

using Doubles = std::vector<double>;

double random_double(std::mt19937& rng) {
  return static_cast<double>(rng()) / 0x1p31 - 1;
}

ExactExpert random_exact_expert(std::int64_t hidden, std::int64_t intermediate, std::mt19937& rng) {
  ExactExpert expert{{intermediate, hidden}, {intermediate, hidden}, {hidden, intermediate}};
  for (Matrix<double>* weights : {&expert.gate, &expert.up, &expert.down}) {
    for (double& w : weights->all()) w = random_double(rng);
  }
  return expert;
}

// 1 value in, 1 inside, 1 out, by hand: g = 2, u = 3, h = 2 s(2) 3, y = 5 h with s(2) = 0.880797...
TEST(ExactExpert, DoesAWorkedExample) {
  ExactExpert expert{{1, 1}, {1, 1}, {1, 1}};
  expert.gate(0, 0) = 4, expert.up(0, 0) = 6, expert.down(0, 0) = 5;
  const double s = 0.8807970779778823;
  Doubles x{0.5}, y{0}, dy{0.1}, dx{0};
  exact_forward(expert, x, y);
  EXPECT_NEAR(y[0], 5 * 6 * s, 1e-14);
  ExactExpert gradients = zero_gradients(expert);
  exact_backward(expert, x, dy, dx, gradients);
  // dh = 0.5; du = dh 2 s; dg = dh 3 s (1 + 2 (1 - s)).
  const double du = s, dg = 1.5 * s * (1 + 2 * (1 - s));
  EXPECT_NEAR(gradients.down(0, 0), 0.1 * 6 * s, 1e-14);
  EXPECT_NEAR(gradients.up(0, 0), du * 0.5, 1e-14);
  EXPECT_NEAR(gradients.gate(0, 0), dg * 0.5, 1e-14);
  EXPECT_NEAR(dx[0], 4 * dg + 6 * du, 1e-14);
}

// L = <y, dy>. A central difference with h = 1e-4 is off by h^2 / 6 times the third derivative,
// which is below 100 here, and by rounding, 1e-16 / h.
TEST(ExactExpert, HasTheGradientsOfFiniteDifferences) {
  constexpr double kStep = 1e-4;
  for (const auto& [hidden, intermediate] : {std::pair{1, 1}, {4, 3}, {3, 7}}) {
    std::mt19937 rng(3);
    ExactExpert expert = random_exact_expert(hidden, intermediate, rng);
    const auto size = static_cast<std::size_t>(hidden);
    Doubles x(size), dy(size), y(size), dx(size);
    for (double& v : x) v = random_double(rng);
    for (double& v : dy) v = random_double(rng);
    ExactExpert gradients = zero_gradients(expert);
    exact_backward(expert, x, dy, dx, gradients);
    const auto loss = [&] {
      exact_forward(expert, x, y);
      double sum = 0;
      for (std::size_t i = 0; i < y.size(); ++i) sum += y[i] * dy[i];
      return sum;
    };
    const auto check = [&](double& value, double gradient) {
      const double before = value;
      value = before + kStep;
      const double above = loss();
      value = before - kStep;
      const double below = loss();
      value = before;
      EXPECT_NEAR(gradient, (above - below) / (2 * kStep), 2e-7);
    };
    for (std::size_t i = 0; i < x.size(); ++i) check(x[i], dx[i]);
    for (const auto part : {&ExactExpert::gate, &ExactExpert::up, &ExactExpert::down}) {
      const auto values = (expert.*part).all(), of_values = (gradients.*part).all();
      for (std::size_t i = 0; i < values.size(); ++i) check(values[i], of_values[i]);
    }
  }
}

// Experts of three slots, one of them empty.
struct Slots {
  explicit Slots(std::mt19937& rng) {
    for (int e = 0; e < 2; ++e) {
      const auto add = [&](std::int64_t outputs, std::int64_t inputs) {
        return weights.emplace_back(outputs, inputs, ElementType::kBf16, rng).view;
      };
      experts.push_back({.gate = add(3, 4), .up = add(3, 4), .down = add(4, 3)});
    }
    slots = {&experts[0], nullptr, &experts[1]};
  }

  std::deque<RandomWeights> weights;
  std::deque<ExpertWeights> experts;
  std::vector<const ExpertWeights*> slots;
};

TEST(CpuExperts, ComputesTheRowsOfEachSlotAndNoOthers) {
  std::mt19937 rng(5);
  const Slots slots(rng);
  ThreadPool pool(2);
  GroupedGemm gemm(Arithmetic::kF32, pool);
  ExpertMlps mlps(gemm);
  CpuExperts experts(mlps, slots.slots);
  const Matrix<float> rows = random_matrix(7, 4, rng), dout = random_matrix(7, 4, rng);
  Matrix<float> out(7, 4, 99.0F), drows = out;
  const std::vector<std::int64_t> offsets{1, 3, 3, 6};  // rows 0 and 6 are of no slot
  std::vector<ExactExpert> dweights(3);
  dweights[0] = zero_gradients(exact_expert(slots.experts[0]));
  dweights[2] = zero_gradients(exact_expert(slots.experts[1]));
  experts.forward(offsets, rows, out);
  experts.backward(offsets, rows, dout, drows, dweights);

  std::vector<ExactExpert> expected(2);
  for (std::size_t e = 0; e < 2; ++e) expected[e] = zero_gradients(exact_expert(slots.experts[e]));
  for (std::int64_t row = 0; row < 7; ++row) {
    if (row == 0 || row == 6) {
      for (const float v : out.row(row)) EXPECT_EQ(v, 99.0F);
      for (const float v : drows.row(row)) EXPECT_EQ(v, 99.0F);
      continue;
    }
    const std::size_t e = row < 3 ? 0 : 1;
    const ExactExpert expert = exact_expert(slots.experts[e]);
    const Doubles x(rows.row(row).begin(), rows.row(row).end()),
        dy(dout.row(row).begin(), dout.row(row).end());
    Doubles y(4), dx(4);
    exact_forward(expert, x, y);
    exact_backward(expert, x, dy, dx, expected[e]);
    for (std::size_t c = 0; c < 4; ++c) {
      // Sums of 4 and of 3 products in f32; values are below 4 in magnitude.
      EXPECT_NEAR(out(row, std::int64_t(c)), y[c], 4 * 12 * 0x1p-24);
      EXPECT_EQ(drows(row, std::int64_t(c)), static_cast<float>(dx[c]));
    }
  }
  EXPECT_EQ(dweights[0].gate, expected[0].gate);
  EXPECT_EQ(dweights[2].up, expected[1].up);
  EXPECT_EQ(dweights[2].down, expected[1].down);
  EXPECT_EQ(dweights[1].gate.rows(), 0);
}

TEST(CpuExperts, RefusesOffsetsThatAreNotOfItsSlots) {
  std::mt19937 rng(6);
  const Slots slots(rng);
  ThreadPool pool(1);
  GroupedGemm gemm(Arithmetic::kF32, pool);
  ExpertMlps mlps(gemm);
  CpuExperts experts(mlps, slots.slots);
  const Matrix<float> rows(4, 4);
  Matrix<float> out(4, 4);
  std::vector<ExactExpert> dweights(2);
  const std::vector<std::int64_t> few{0, 2, 4}, without_expert{0, 1, 3, 4}, good{0, 2, 2, 4};
  EXPECT_EQ(error_of([&] { experts.forward(few, rows, out); }),
            "there are 3 slots, but 3 offsets; give one more than slots");
  EXPECT_EQ(error_of([&] { experts.forward(without_expert, rows, out); }),
            "slot 1 has no expert, but 2 rows");
  EXPECT_EQ(error_of([&] { experts.backward(good, rows, rows, out, dweights); }),
            "there are 3 slots, but gradients for 2");
}

}  // namespace
}  // namespace c2r
