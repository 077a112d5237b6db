// Compares expert MLPs and activations with their formulas, and checks their errors.
#include "c2r/experts/expert_mlp.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <random>

#include "c2r/core/every_target_testing.h"
#include "c2r/core/testing.h"
#include "c2r/experts/activation.h"
#include "c2r/experts/testing_internal.h"

namespace c2r {
namespace {

using testing::error_of;
using testing::random_matrix;
using testing::RandomWeights;

using ActivationsOnEveryTarget = testing::EveryTarget;

TEST_F(ActivationsOnEveryTarget, SiluMatchesTheFormula) {
  std::mt19937 rng(1);
  for (const std::int64_t size : {0, 1, 7, 16, 100}) {
    Matrix<float> before = random_matrix(1, size, rng);
    const Matrix<float> up = random_matrix(1, size, rng);
    for (float& g : before.all()) g *= rng() % 2 == 0 ? 30.0f : 400.0f;
    if (size > 6)
      std::ranges::copy(std::vector{-178.f, -200.f, -350.f, -1e4f}, before.row(0).begin());
    on_every_target([&] {
      Matrix<float> gate = before;
      silu_multiply(gate.all(), up.all());
      for (std::int64_t i = 0; i < size; ++i) {
        const double g = before(0, i), expected = g / (1 + std::exp(-g)) * double{up(0, i)};
        // exp within an ulp, and four more roundings; an infinite exp is from e^-88 on.
        ASSERT_NEAR(gate(0, i), expected, 6 * 0x1p-23 * std::abs(expected) + 1e-30) << g;
      }
    });
  }
}

TEST_F(ActivationsOnEveryTarget, SiluOfNanIsNan) {
  on_every_target([] {
    std::vector<float> gate(9, NAN);
    silu_multiply(gate, std::vector<float>(9, 1));
    for (const float g : gate) EXPECT_TRUE(std::isnan(g));
  });
}

// Rows of scores lie anywhere, so each size begins at an address of its own.
TEST_F(ActivationsOnEveryTarget, SoftmaxMatchesTheFormulaAndIgnoresMaskedValues) {
  std::mt19937 rng(2);
  for (const std::int64_t size : {1, 5, 16, 33, 1000}) {
    const Matrix<float> numbers = random_matrix(1, size, rng);
    std::vector<float> before(numbers.all().begin(), numbers.all().end());
    for (float& v : before) v *= 20;
    if (size > 2) before[1] = -INFINITY;
    double max = -INFINITY, sum = 0;
    for (const float v : before) max = std::max(max, double{v});
    for (const float v : before) sum += std::exp(v - max);
    on_every_target([&] {
      std::vector<float> storage(before.size() + 2, 7);  // with a neighbour on each side
      const auto values = std::span(storage).subspan(1, before.size());
      std::ranges::copy(before, values.begin());
      softmax(values);
      for (std::size_t i = 0; i < before.size(); ++i) {
        const double expected = std::exp(before[i] - max) / sum;
        // The difference to the maximum, up to 40, is rounded before it is an exponent.
        ASSERT_NEAR(values[i], expected, (40 + double(size)) * 0x1p-23 * expected + 1e-30);
      }
      EXPECT_EQ(storage.front(), 7);
      EXPECT_EQ(storage.back(), 7);
    });
  }
}

struct Experts {
  std::deque<RandomWeights> weights;
  std::vector<ExpertWeights> experts;
};

Experts random_experts(int num_experts, std::int64_t hidden, std::int64_t intermediate,
                       ElementType type, std::mt19937& rng) {
  Experts made;
  for (int e = 0; e < num_experts; ++e) {
    const std::int64_t inner = intermediate + e;  // experts need not be equally large
    const auto view = [&](std::int64_t outputs, std::int64_t inputs) {
      return made.weights.emplace_back(outputs, inputs, type, rng).view;
    };
    const RowsView gate = view(inner, hidden), up = view(inner, hidden);
    made.experts.push_back({.gate = gate, .up = up, .down = view(hidden, inner)});
  }
  return made;
}

// Every value of an expert's output is a sum over `intermediate` of products with down weights of
// magnitude at most 1; each inner value is at most |gate||up| <= hidden^2 / 4, though typically
// far smaller, so errors are compared with the largest output of the group. Rounding activations
// to bf16 (2^-9 each) dominates where they are; sums add sqrt(n) 2^-24 in practice, n at worst.
void expect_close(const Matrix<float>& got, const Matrix<float>& expected, bool is_bf16) {
  float largest = 0;
  for (const float v : expected.all()) largest = std::max(largest, std::abs(v));
  const float tolerance = largest * (is_bf16 ? 8 * 0x1p-9f : 512 * 0x1p-23f);
  for (std::int64_t row = 0; row < got.rows(); ++row) {
    for (std::int64_t h = 0; h < got.cols(); ++h) {
      ASSERT_NEAR(got(row, h), expected(row, h), tolerance) << row << ", " << h;
    }
  }
}

TEST(ExpertMlps, MatchTheReferenceForGroupsOfEverySize) {
  for (unsigned seed = 0; seed < 12; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 rng(seed);
    const auto type = static_cast<ElementType>(seed % 3);
    const Experts made = random_experts(5, 40 + seed, 24, type, rng);
    std::deque<Matrix<float>> xs, outs, expected;
    std::vector<ExpertRows> groups, reference;
    const std::int64_t hot = seed == 0 ? 200 : 9;  // one expert has most of the rows
    for (std::size_t e = 0; e < made.experts.size(); ++e) {
      const std::int64_t rows = e == 2 ? hot : static_cast<std::int64_t>(rng() % 3);
      xs.push_back(random_matrix(rows, 40 + seed, rng));
      outs.emplace_back(rows, 40 + seed);
      expected.emplace_back(rows, 40 + seed);
      groups.push_back({&made.experts[e], xs.back(), outs.back()});
      reference.push_back({&made.experts[e], xs.back(), expected.back()});
    }
    run_experts_reference(reference);
    for (const Arithmetic arithmetic : {Arithmetic::kF32, Arithmetic::kBf16}) {
      ThreadPool pool(2);
      GroupedGemm gemm(arithmetic, pool);
      ExpertMlps mlps(gemm);
      mlps.run(groups);
      for (std::size_t e = 0; e < outs.size(); ++e) {
        expect_close(outs[e], expected[e], arithmetic == Arithmetic::kBf16);
      }
    }
  }
}

TEST(ExpertMlps, NoRowsAreNoWork) {
  std::mt19937 rng(1);
  const Experts made = random_experts(1, 8, 8, ElementType::kF32, rng);
  const Matrix<float> x(0, 8);
  Matrix<float> out(0, 8);
  ThreadPool pool(2);
  GroupedGemm gemm(Arithmetic::kF32, pool);
  const ExpertRows group{made.experts.data(), x, out};
  ExpertMlps(gemm).run({&group, 1});
  ExpertMlps(gemm).run({});
}

// The groups' second one is wrong.
TEST(ExpertMlps, GroupsThatDoNotFitTheirExpertAreRefused) {
  std::mt19937 rng(1);
  const Experts made = random_experts(3, 8, 8, ElementType::kF32, rng);
  const Matrix<float> x(2, 8), wide(2, 9);
  Matrix<float> out(2, 8), long_out(3, 8);
  const auto message = [&](const ExpertRows& second) {
    const ExpertRows groups[] = {{made.experts.data(), x, out}, second};
    ThreadPool pool(1);
    GroupedGemm gemm(Arithmetic::kF32, pool);
    const std::string error = error_of([&] { ExpertMlps(gemm).run(groups); });
    EXPECT_EQ(error_of([&] { run_experts_reference(groups); }), error);
    return error;
  };
  ExpertWeights broken = made.experts[0];
  broken.down = made.experts[1].down;
  EXPECT_EQ(message({&broken, x, out}),
            "an expert's gate has 8 outputs, but its down projection 9 inputs");
  broken = made.experts[0];
  broken.up = made.experts[2].up;
  EXPECT_EQ(message({&broken, x, out}),
            "an expert's gate is [8, 8], but its up projection [10, 8]");
  EXPECT_EQ(message({nullptr, x, out}), "2 rows have no expert");
  EXPECT_EQ(message({&made.experts[1], wide, out}),
            "an expert of hidden size 8 cannot compute rows [2, 9] into rows [2, 8]");
  EXPECT_EQ(message({&made.experts[1], x, long_out}),
            "an expert of hidden size 8 cannot compute rows [2, 8] into rows [3, 8]");
  const std::vector<std::int32_t> three = {0, 1, 1}, beyond = {1, 2};
  EXPECT_EQ(message({&made.experts[1], {f32_rows(x), three}, out}),
            "an expert of hidden size 8 cannot compute rows [3, 8] into rows [2, 8]");
  EXPECT_EQ(message({&made.experts[1], {f32_rows(x), beyond}, out}),
            "a row index names row 2, but x has 2 rows");
}

TEST(ExpertMlps, ValuesOfDifferentLengthsAreRefused) {
  std::vector<float> three(3), four(4);
  EXPECT_EQ(error_of([&] { silu_multiply(four, three); }),
            "4 gate values cannot be multiplied by 3 values");
  EXPECT_EQ(error_of([&] { add_weighted(three, 1, four); }), "3 outputs cannot be added to 4 sums");
}

}  // namespace
}  // namespace c2r
