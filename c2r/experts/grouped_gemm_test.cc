#include "c2r/experts/grouped_gemm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <deque>
#include <random>

#include "c2r/core/testing.h"
#include "c2r/experts/testing_internal.h"

namespace c2r {
namespace {

using testing::error_of;
using testing::random_matrix;
using testing::RandomWeights;

constexpr WeightType kTypes[] = {WeightType::kF32, WeightType::kF16, WeightType::kBf16};

// 2 rows, 3 inputs, 2 outputs, worked by hand; all numbers are exact in every type.
TEST(GroupedGemm, MultipliesAWorkedExample) {
  const float weights[] = {1, 2, 3, -1, 0, 4};
  Matrix<float> x(2, 3), out(2, 2);
  std::ranges::copy(std::vector<float>{1, 1, 1, 2, 0, -1}, x.all().begin());
  const std::vector<float> bias = {10, 20};
  for (const GemmBackend& backend : gemm_backends()) {
    if (!backend.why_not(WeightType::kF32, Arithmetic::kF32).empty()) continue;
    ThreadPool pool(2);
    GroupedGemm gemm(Arithmetic::kF32, pool, backend.name);
    const GemmGroup group{
        .x = x,
        .weight = {reinterpret_cast<const std::byte*>(weights), WeightType::kF32, 2, 3, 3},
        .bias = bias,
        .out = out};
    gemm.run(std::span(&group, 1));
    EXPECT_EQ(std::vector(out.all().begin(), out.all().end()), std::vector<float>({16, 23, 9, 14}));
  }
}

// The product by the formula, and the bound on how far another order of additions may be from it:
// n products of magnitude up to |x||w| are added in f32, each step rounding by half of 2^-23 of a
// partial sum that never exceeds their sum, and VDPBF16PS rounds twice a step and the bias once.
struct Expected {
  double value = 0, tolerance = 0;
};
Expected by_definition(const GemmGroup& group, std::int64_t row, std::int64_t output,
                       bool is_rounded) {
  std::vector<float> weights(static_cast<std::size_t>(group.weight.num_inputs));
  copy_weights(group.weight.row(output), group.weight.type, weights);
  Expected expected;
  double magnitudes = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const float input = group.x.row(row)[i];
    const double product =
        double{is_rounded ? to_float(to_bf16(input)) : input} * double{weights[i]};
    expected.value += product;
    magnitudes += std::abs(product);
  }
  if (!group.bias.empty()) {
    const double bias = group.bias[static_cast<std::size_t>(output)];
    expected.value += bias;
    magnitudes += std::abs(bias);
  }
  expected.tolerance = (static_cast<double>(weights.size()) + 4) * 0x1p-23 * magnitudes;
  return expected;
}

void expect_close(const GemmGroup& group, bool is_rounded) {
  for (std::int64_t row = 0; row < group.x.rows(); ++row) {
    for (std::int64_t output = 0; output < group.weight.num_outputs; ++output) {
      const Expected e = by_definition(group, row, output, is_rounded);
      ASSERT_NEAR(group.out(row, output), e.value, e.tolerance) << row << ", " << output;
    }
  }
}

TEST(GroupedGemm, EveryBackendMatchesTheDefinitionOnRandomShapes) {
  ThreadPool pool(2);
  int num_compared = 0;
  for (const GemmBackend& backend : gemm_backends()) {
    for (const Arithmetic arithmetic : {Arithmetic::kF32, Arithmetic::kBf16}) {
      for (const WeightType type : kTypes) {
        if (!backend.why_not(type, arithmetic).empty()) continue;
        GroupedGemm gemm(arithmetic, pool, backend.name);
        for (unsigned seed = 0; seed < 40; ++seed) {
          SCOPED_TRACE(
              fmt::format("{}, type {}, seed {}", backend.name, static_cast<int>(type), seed));
          std::mt19937 rng(seed);
          const std::int64_t rows = seed % 11, inputs = 1 + rng() % 150, outputs = 1 + rng() % 40;
          const Matrix<float> x = random_matrix(rows, inputs, rng);
          const RandomWeights w(outputs, inputs, type, rng, seed % 3);
          const Matrix<float> bias = random_matrix(1, outputs, rng);
          Matrix<float> out(rows, outputs, NAN);
          const GemmGroup group{.x = x,
                                .weight = w.view,
                                .bias = seed % 2 == 0 ? bias.row(0) : std::span<const float>(),
                                .out = out};
          gemm.run(std::span(&group, 1));
          expect_close(group, backend.name == "avx512-bf16");
          ++num_compared;
        }
      }
    }
  }
  EXPECT_GE(num_compared, 2 * 6 * 40);  // the vectors and the reference do everything
}

// Large enough for several blocks of rows and of outputs in each group.
TEST(GroupedGemm, GroupsAreComputedEachWithItsOwnWeights) {
  std::mt19937 rng(7);
  std::deque<Matrix<float>> xs, outs;
  std::deque<RandomWeights> weights;
  std::vector<GemmGroup> groups;
  for (const std::int64_t rows : {0, 1, 300, 5, 0, 2}) {
    xs.push_back(random_matrix(rows, 150, rng));
    for (int shared = 0; shared < 2; ++shared) {  // two groups that share their x
      weights.emplace_back(250 + rows, 150, shared == 0 ? WeightType::kBf16 : WeightType::kF32,
                           rng);
      outs.emplace_back(rows, 250 + rows, NAN);
      groups.push_back({.x = xs.back(), .weight = weights.back().view, .out = outs.back()});
    }
  }
  for (const Arithmetic arithmetic : {Arithmetic::kF32, Arithmetic::kBf16}) {
    ThreadPool pool(3);
    GroupedGemm(arithmetic, pool).run(groups);
    for (const GemmGroup& group : groups) {
      const auto& backend = choose_gemm_backend(group.weight.type, arithmetic);
      expect_close(group, backend.name == "avx512-bf16");
    }
  }
}

TEST(GroupedGemm, ARowIsTheSameBitsInAnyBatchAndOnAnyNumberOfThreads) {
  std::mt19937 rng(3);
  const Matrix<float> x = random_matrix(23, 333, rng);
  for (const WeightType type : kTypes) {
    const RandomWeights w(77, 333, type, rng);
    Matrix<float> together(23, 77), alone(23, 77);
    ThreadPool one(1), three(3);
    const GemmGroup group{.x = x, .weight = w.view, .out = together};
    GroupedGemm(Arithmetic::kBf16, three).run(std::span(&group, 1));
    GroupedGemm gemm(Arithmetic::kBf16, one);
    for (std::int64_t row = 0; row < x.rows(); ++row) {
      const GemmGroup single{.x = MatrixView<const float>(x).rows(row, row + 1),
                             .weight = w.view,
                             .out = MatrixView<float>(alone).rows(row, row + 1)};
      gemm.run(std::span(&single, 1));
    }
    EXPECT_EQ(together, alone);
  }
}

TEST(GroupedGemm, ShapesThatDoNotAgreeAreRefused) {
  std::mt19937 rng(1);
  const RandomWeights w(4, 3, WeightType::kF32, rng);
  const Matrix<float> x(2, 5);
  Matrix<float> out(2, 4);
  ThreadPool pool(1);
  const GemmGroup group{.x = x, .weight = w.view, .out = out};
  EXPECT_EQ(error_of([&] { GroupedGemm(Arithmetic::kF32, pool).run(std::span(&group, 1)); }),
            "cannot multiply x [2, 5] with weights [4, 3] and 0 biases into [2, 4]");
}

TEST(GemmBackends, ABackendThatCannotSaysWhy) {
  EXPECT_EQ(choose_gemm_backend(WeightType::kF32, Arithmetic::kF32, "reference").name, "reference");
  EXPECT_EQ(
      error_of(
          [] { (void)choose_gemm_backend(WeightType::kF32, Arithmetic::kF32, "avx512-bf16"); }),
      "no GEMM backend 'avx512-bf16' can compute this: avx512-bf16: it computes in bf16 only");
  EXPECT_EQ(
      error_of([] { (void)choose_gemm_backend(WeightType::kF32, Arithmetic::kF32, "abacus"); }),
      "no GEMM backend 'abacus' can compute this: unknown");
}

}  // namespace
}  // namespace c2r
