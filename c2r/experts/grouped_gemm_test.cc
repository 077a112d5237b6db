// Compares each GEMM backend with the definition of a product.
#include "c2r/experts/grouped_gemm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <random>

#include "c2r/core/every_target_testing.h"
#include "c2r/core/testing.h"
#include "c2r/experts/testing_internal.h"

namespace c2r {
namespace {

using testing::error_of;
using testing::random_matrix;
using testing::RandomWeights;

constexpr ElementType kTypes[] = {ElementType::kF32, ElementType::kF16, ElementType::kBf16};

// 2 rows, 3 inputs, 2 outputs, worked by hand; all numbers are exact in every type.
TEST(GroupedGemm, MultipliesAWorkedExample) {
  const float weights[] = {1, 2, 3, -1, 0, 4};
  Matrix<float> x(2, 3), out(2, 2);
  std::ranges::copy(std::vector<float>{1, 1, 1, 2, 0, -1}, x.all().begin());
  const std::vector<float> bias = {10, 20};
  for (const GemmBackend& backend : gemm_backends()) {
    if (!backend.why_not(ElementType::kF32, Arithmetic::kF32).empty()) continue;
    ThreadPool pool(2);
    GroupedGemm gemm(Arithmetic::kF32, pool, backend.name);
    const GemmGroup group{
        .x = x,
        .weight = {reinterpret_cast<const std::byte*>(weights), ElementType::kF32, 2, 3, 3},
        .bias = bias,
        .out = out};
    gemm.run(std::span(&group, 1));
    EXPECT_EQ(std::vector(out.all().begin(), out.all().end()), std::vector<float>({16, 23, 9, 14}));
  }
}

// The product by the formula, and the bound on how far another order of additions may be from it:
// n products of magnitude up to |x||w| are added in f32, each step rounding by half of 2^-23 of a
// partial sum that never exceeds their sum, and VDPBF16PS rounds twice a step and the bias once.
void expect_close(const GemmGroup& group, bool is_rounded) {
  std::vector<float> weights(static_cast<std::size_t>(group.weight.cols())), inputs = weights;
  for (std::int64_t output = 0; output < group.weight.rows(); ++output) {
    group.weight.read_row(output, weights);
    const double bias =
        group.bias.empty() ? 0.0 : double{group.bias[static_cast<std::size_t>(output)]};
    for (std::int64_t row = 0; row < group.num_rows(); ++row) {
      group.x.read_row(row, inputs);
      double expected = bias, magnitudes = std::abs(bias);
      for (std::size_t i = 0; i < weights.size(); ++i) {
        const double product =
            double{is_rounded ? to_float(to_bf16(inputs[i])) : inputs[i]} * double{weights[i]};
        expected += product;
        magnitudes += std::abs(product);
      }
      const double tolerance = (static_cast<double>(weights.size()) + 4) * 0x1p-23 * magnitudes;
      ASSERT_NEAR(group.out(row, output), expected, tolerance) << row << ", " << output;
    }
  }
}

struct Case {
  std::string_view backend;
  Arithmetic arithmetic = Arithmetic::kF32;
  ElementType type = ElementType::kF32;
};
void PrintTo(const Case& test, std::ostream* out) {
  *out << test.backend;
}

// Every pair of a backend and what this machine, or another, can compute with it.
std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const GemmBackend& backend : gemm_backends()) {
    for (const Arithmetic arithmetic : {Arithmetic::kF32, Arithmetic::kBf16}) {
      for (const ElementType type : kTypes) {
        const bool is_possible = backend.name != "avx512-bf16" ||
                                 (arithmetic == Arithmetic::kBf16 && type == ElementType::kBf16);
        if (is_possible) cases.push_back({backend.name, arithmetic, type});
      }
    }
  }
  return cases;
}

class GemmBackendTest : public testing::EveryTarget, public ::testing::WithParamInterface<Case> {
 protected:
  void SetUp() override {
    const GemmBackend& backend =
        *std::ranges::find(gemm_backends(), GetParam().backend, &GemmBackend::name);
    const std::string why = backend.why_not(GetParam().type, GetParam().arithmetic);
    if (!why.empty()) GTEST_SKIP() << why;
  }

  // A product whose rows, weights and biases are drawn.
  void compare(std::int64_t rows, std::int64_t inputs, std::int64_t outputs, unsigned seed) {
    SCOPED_TRACE(fmt::format("{} x {} x {}, seed {}", rows, inputs, outputs, seed));
    std::mt19937 rng(seed);
    const Matrix<float> x = random_matrix(rows, inputs, rng);
    const RandomWeights w(outputs, inputs, GetParam().type, rng, seed % 3);
    const Matrix<float> bias = random_matrix(1, outputs, rng);
    const auto body = [&] {
      Matrix<float> out(rows, outputs, NAN);
      const GemmGroup group{.x = x,
                            .weight = w.view,
                            .bias = seed % 2 == 0 ? bias.row(0) : std::span<const float>(),
                            .out = out};
      gemm_.run(std::span(&group, 1));
      expect_close(group, GetParam().backend == "avx512-bf16");
    };
    GetParam().backend == "vectors" ? on_every_target(body) : body();
  }

 private:
  ThreadPool pool_{2};
  GroupedGemm gemm_{GetParam().arithmetic, pool_, GetParam().backend};
};

TEST_P(GemmBackendTest, MatchesTheDefinitionOnRandomShapes) {
  for (unsigned seed = 0; seed < 40; ++seed) {
    std::mt19937 rng(seed);
    compare(seed % 11, 1 + rng() % 150, 1 + rng() % 40, seed);
  }
}

// More inputs than stay in a cache, and more outputs than share them there.
TEST_P(GemmBackendTest, MatchesTheDefinitionOnLongRows) {
  for (const std::int64_t rows : {1, 4, 9}) compare(rows, 1100, 50, 0);
}

std::string name_of_case(const ::testing::TestParamInfo<Case>& test) {
  constexpr const char* kTypeNames[] = {"F32", "F16", "Bf16"};
  std::string name(test.param.backend);
  std::ranges::replace(name, '-', '_');
  return fmt::format("{}_{}_In{}", name, kTypeNames[static_cast<int>(test.param.type)],
                     kTypeNames[test.param.arithmetic == Arithmetic::kF32 ? 0 : 2]);
}

INSTANTIATE_TEST_SUITE_P(Gemm, GemmBackendTest, ::testing::ValuesIn(all_cases()), name_of_case);

// Several blocks of 60 rows and of 60 or 120 outputs in the largest group.
TEST(GroupedGemm, GroupsAreComputedEachWithItsOwnWeights) {
  std::mt19937 rng(7);
  constexpr std::int64_t kInputs = 1100;
  std::deque<Matrix<float>> xs, outs;
  std::deque<RandomWeights> weights;
  std::vector<GemmGroup> groups;
  for (const std::int64_t rows : {0, 1, 70, 5, 0, 2}) {
    xs.push_back(random_matrix(rows, kInputs, rng));
    for (int shared = 0; shared < 2; ++shared) {  // two groups that share their x
      weights.emplace_back(250 + rows, kInputs,
                           shared == 0 ? ElementType::kBf16 : ElementType::kF32, rng);
      outs.emplace_back(rows, 250 + rows, NAN);
      groups.push_back({.x = xs.back(), .weight = weights.back().view, .out = outs.back()});
    }
  }
  for (const Arithmetic arithmetic : {Arithmetic::kF32, Arithmetic::kBf16}) {
    ThreadPool pool(3);
    GroupedGemm(arithmetic, pool).run(groups);
    for (const GemmGroup& group : groups) {
      const auto& backend = choose_gemm_backend(group.weight.type(), arithmetic);
      expect_close(group, backend.name == "avx512-bf16");
    }
  }
}

TEST(GroupedGemm, ARowIsTheSameBitsInAnyBatchAndOnAnyNumberOfThreads) {
  std::mt19937 rng(3);
  const Matrix<float> x = random_matrix(23, 1100, rng);
  for (const ElementType type : kTypes) {
    const RandomWeights w(77, 1100, type, rng);
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

// Rows of two groups out of one x, some of them in both, some twice and some in none.
TEST(GroupedGemm, ARowIndexGathersTheRowsThatAreMultiplied) {
  std::mt19937 rng(4);
  const Matrix<float> x = random_matrix(9, 70, rng);
  const std::vector<std::vector<std::int32_t>> indices{{8, 0, 3, 3, 7, 1}, {0}, {2, 8}};
  for (const ElementType type : kTypes) {
    for (const GemmBackend& backend : gemm_backends()) {
      if (!backend.why_not(type, Arithmetic::kBf16).empty()) continue;
      std::deque<RandomWeights> weights;
      std::deque<Matrix<float>> copies, gathered, copied;
      std::vector<GemmGroup> groups, expected;
      for (const auto& row_index : indices) {
        const std::int64_t rows = std::ssize(row_index);
        Matrix<float>& copy = copies.emplace_back(rows, 70);
        for (std::int64_t r = 0; r < rows; ++r) {
          std::ranges::copy(x.row(row_index[std::size_t(r)]), copy.row(r).begin());
        }
        for (int shared = 0; shared < 2; ++shared) {  // two groups that share their rows
          const RowsView& w = weights.emplace_back(13, 70, type, rng).view;
          groups.push_back({.x = {f32_rows(x), row_index},
                            .weight = w,
                            .out = gathered.emplace_back(rows, 13, NAN)});
          expected.push_back({.x = copy, .weight = w, .out = copied.emplace_back(rows, 13, NAN)});
        }
      }
      ThreadPool pool(2);
      GroupedGemm gemm(Arithmetic::kBf16, pool, backend.name);
      gemm.run(groups);
      gemm.run(expected);
      EXPECT_EQ(gathered, copied) << backend.name;
    }
  }
}

// Rows that arrived from other ranks, in their type on the wire, beside rows of f32: the product of
// each is that of its values in f32.
TEST(GroupedGemm, WidensRowsOfOtherTypesWhileItPacksThem) {
  std::mt19937 rng(6);
  const Matrix<float> own = random_matrix(3, 70, rng);
  const std::vector<std::int32_t> row_index{5, 0, 7, 6, 2, 1, 5};  // 0 to 4 are stored as `type`
  for (const ElementType type : kTypes) {
    const RandomWeights stored(5, 70, type, rng), weights(13, 70, ElementType::kBf16, rng);
    const GatheredRows rows(stored.view, row_index, f32_rows(own));
    Matrix<float> widened(7, 70);
    for (std::int64_t r = 0; r < 7; ++r) rows.read_row(r, widened.row(r));
    for (const GemmBackend& backend : gemm_backends()) {
      if (!backend.why_not(ElementType::kBf16, Arithmetic::kBf16).empty()) continue;
      Matrix<float> out(7, 13, NAN), expected = out, dense(5, 13, NAN), dense_expected = dense;
      Matrix<float> all(5, 70);
      for (std::int64_t r = 0; r < 5; ++r) stored.view.read_row(r, all.row(r));
      const GemmGroup groups[] = {{.x = rows, .weight = weights.view, .out = out},
                                  {.x = widened, .weight = weights.view, .out = expected},
                                  {.x = stored.view, .weight = weights.view, .out = dense},
                                  {.x = all, .weight = weights.view, .out = dense_expected}};
      ThreadPool pool(2);
      GroupedGemm(Arithmetic::kBf16, pool, backend.name).run(groups);
      EXPECT_EQ(out, expected) << backend.name << " " << name_of(type);
      EXPECT_EQ(dense, dense_expected) << backend.name << " " << name_of(type);
    }
  }
}

TEST(GroupedGemm, RefusesARowIndexThatIsNotOfItsRows) {
  std::mt19937 rng(1);
  const RandomWeights w(4, 5, ElementType::kF32, rng);
  const Matrix<float> x(3, 5);
  Matrix<float> out(2, 4);
  ThreadPool pool(1);
  const auto error = [&](const std::vector<std::int32_t>& row_index) {
    const GemmGroup group{.x = {f32_rows(x), row_index}, .weight = w.view, .out = out};
    return error_of([&] { GroupedGemm(Arithmetic::kF32, pool).run(std::span(&group, 1)); });
  };
  EXPECT_EQ(error({2, 3}), "a row index names row 3, but x has 3 rows");
  EXPECT_EQ(error({0, -1}), "a row index names row -1, but x has 3 rows");
  EXPECT_EQ(error({0, 1, 2}),
            "cannot multiply x [3, 5] with weights [4, 5] and 0 biases into [2, 4]");
}

TEST(GroupedGemm, ShapesThatDoNotAgreeAreRefused) {
  std::mt19937 rng(1);
  const RandomWeights w(4, 3, ElementType::kF32, rng);
  const Matrix<float> x(2, 5);
  Matrix<float> out(2, 4);
  ThreadPool pool(1);
  const GemmGroup group{.x = x, .weight = w.view, .out = out};
  EXPECT_EQ(error_of([&] { GroupedGemm(Arithmetic::kF32, pool).run(std::span(&group, 1)); }),
            "cannot multiply x [2, 5] with weights [4, 3] and 0 biases into [2, 4]");
}

TEST(GemmBackends, ABackendThatCannotSaysWhy) {
  EXPECT_EQ(choose_gemm_backend(ElementType::kF32, Arithmetic::kF32, "reference").name,
            "reference");
  EXPECT_EQ(
      error_of(
          [] { (void)choose_gemm_backend(ElementType::kF32, Arithmetic::kF32, "avx512-bf16"); }),
      "no GEMM backend 'avx512-bf16' can compute this: avx512-bf16: it computes in bf16 only");
  EXPECT_EQ(
      error_of([] { (void)choose_gemm_backend(ElementType::kF32, Arithmetic::kF32, "abacus"); }),
      "no GEMM backend 'abacus' can compute this: unknown");
}

}  // namespace
}  // namespace c2r
