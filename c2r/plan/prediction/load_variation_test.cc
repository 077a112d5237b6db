// Tests of standard errors of loads over sequences.
#include "c2r/plan/prediction/load_variation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "c2r/core/rng.h"
#include "c2r/plan/prediction/predict.h"

namespace c2r {
namespace {

// One layer of 2 experts, top-1; sequence s has `length` tokens, of which `of_second(s)` choose
// expert 1.
Trace trace_of_shares(std::int64_t num_sequences, std::int64_t length,
                      const std::function<std::int64_t(std::int64_t)>& of_second) {
  Matrix<ExpertId> choices(num_sequences * length, 1);
  std::vector<std::int64_t> starts;
  for (std::int64_t s = 0; s < num_sequences; ++s) {
    starts.push_back(s * length);
    const std::int64_t second = of_second(s);
    for (std::int64_t t = 0; t < length; ++t) {
      choices(s * length + t, 0) = ExpertId{t < second ? 1 : 0};
    }
  }
  const MatrixView<const ExpertId> view = choices;
  return Trace({.model = "m", .num_experts = 2, .top_k = 1, .layer_indices = {0}},
               std::span(&view, 1), starts);
}

std::optional<LoadVariation> variation_of(const Trace& trace) {
  return load_variation(routed_tokens_of(trace, SequencePart::kAll),
                        contiguous_placements(trace.header(), {.ranks_per_node = 2}), 2);
}

TEST(LoadVariation, IsTheStandardErrorOfARatioWorkedByHand) {
  // Shares of rank 1: 1, 3, 1, 3 of 4; mean 2. The deviations are 1, so that the sum of squares is
  // 4, and se = 2 x sqrt(4 / 3 x 4) / 16.
  const auto variation =
      variation_of(trace_of_shares(4, 4, [](std::int64_t s) { return s % 2 == 0 ? 1 : 3; }));
  ASSERT_TRUE(variation);
  EXPECT_EQ(variation->num_sequences, 4);
  EXPECT_NEAR(variation->standard_error, 2 * std::sqrt(16.0 / 3) / 16, 1e-12);
  EXPECT_NEAR(variation->half_difference, 0, 1e-12);
}

TEST(LoadVariation, IsTheSpreadOfLoadsOverRecordings) {
  // The spread over 200 recordings of 30 sequences is what each recording estimates, within a
  // quarter: an estimate of 30 values is off by 1 / sqrt(60) = 13 %, and twice that is rare.
  std::mt19937_64 rng(5);
  double squares = 0, estimated = 0;
  constexpr int kRecordings = 200;
  for (int recording = 0; recording < kRecordings; ++recording) {
    std::int64_t second = 0;
    const Trace trace = trace_of_shares(30, 10, [&](std::int64_t) {
      const auto drawn = std::int64_t(uniform_below(11, rng));
      second += drawn;
      return drawn;
    });
    squares += std::pow(2 * double(second) / 300 - 1, 2) / kRecordings;
    estimated += std::pow(variation_of(trace)->standard_error, 2) / kRecordings;
  }
  EXPECT_NEAR(std::sqrt(squares / estimated), 1, 0.25);
}

TEST(LoadVariation, FindsSequencesThatAreGrouped) {
  std::mt19937_64 rng(6);
  const auto grouped = variation_of(trace_of_shares(40, 20, [&](std::int64_t s) {
    return std::int64_t((s < 20 ? 2 : 14) + uniform_below(4, rng));
  }));
  EXPECT_GT(grouped->half_difference, 3);
  const auto mixed = variation_of(trace_of_shares(40, 20, [&](std::int64_t s) {
    return std::int64_t((s % 2 == 0 ? 2 : 14) + uniform_below(4, rng));
  }));
  EXPECT_LT(mixed->half_difference, 3);
  EXPECT_NE(sample_warning(*grouped, 3, true), "");
  EXPECT_EQ(sample_warning(*grouped, 3, false), "");
  EXPECT_EQ(sample_warning(*mixed, 3, true), "");
}

TEST(LoadVariation, SaysHowFarLoadsAreKnown) {
  EXPECT_EQ(sample_warning({40, 0.03, 1}, 1.05, true),
            "the load of a rank is known to 6.0 % only (two standard errors over 40 fitted "
            "sequences), so layers will exceed the bound of 1.05 on imbalance on other tokens: "
            "record more sequences, or take a higher bound");
  EXPECT_EQ(sample_warning({40, 0.03, 1}, 1.1, true), "");
  EXPECT_EQ(sample_warning({40, 0.03, 4}, 1.1, true),
            "the fitted sequences are grouped, as by subject: loads of ranks differ between their "
            "first and second half 4.0 times as much as chance explains, so the bound for other "
            "tokens holds for the same mixture alone");
}

TEST(LoadVariation, IsUnknownOfFewSequences) {
  EXPECT_EQ(variation_of(trace_of_shares(3, 4, [](std::int64_t s) { return s; })), std::nullopt);
}

}  // namespace
}  // namespace c2r
