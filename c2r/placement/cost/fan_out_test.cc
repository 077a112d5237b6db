// Tests of fan-out against worked examples and published numbers.
#include "c2r/placement/cost/fan_out.h"

#include <gtest/gtest.h>

#include "c2r/core/testing.h"
#include "c2r/import/import.h"

namespace c2r {
namespace {

using testing::error_of;

// Tokens {0, 1}, {0, 2}, {3} and one without a choice: over two ranks, 1 + 2 + 1 + 0 ranks.
Trace small_trace() {
  Matrix<ExpertId> ids(4, 2, kNoExpert);
  ids(0, 0) = ExpertId{0}, ids(0, 1) = ExpertId{1};
  ids(1, 0) = ExpertId{0}, ids(1, 1) = ExpertId{2};
  ids(2, 1) = ExpertId{3};
  const MatrixView<const ExpertId> layers[] = {ids};
  return Trace({.num_experts = 4, .top_k = 2, .layer_indices = {0}}, layers);
}

TEST(FanOutOfSplit, IsTheMeanOverTracesOrFromPairCounts) {
  const Trace trace = small_trace();
  NoProgress progress;
  CollaborationStatistics statistics = count_collaboration(trace, 1, progress);
  const auto counted = fan_out_of_split(statistics, {&trace, 1}, 2, 1, progress);
  EXPECT_EQ(counted->per_layer, (std::vector{4.0 / 4}));
  EXPECT_EQ(counted->mean, 4.0 / 4);
  EXPECT_EQ(fan_out_of_split(statistics, {&trace, 1}, 4, 1, progress)->mean, 5.0 / 4);
  // top-2: the pair counts determine it as the trace does
  EXPECT_EQ(fan_out_of_split(statistics, {}, 2, 1, progress)->mean, 4.0 / 4);
  EXPECT_EQ(fan_out_of_split(statistics, {}, 4, 1, progress)->mean, 5.0 / 4);
  statistics.has_pairs = false;
  EXPECT_FALSE(fan_out_of_split(statistics, {}, 2, 1, progress));
}

TEST(FanOutOfSplit, AddsTheTokensOfAllTraces) {
  const std::vector<Trace> traces = [] {
    std::vector<Trace> made;
    made.push_back(small_trace()), made.push_back(small_trace());
    return made;
  }();
  NoProgress progress;
  CollaborationStatistics statistics = count_collaboration(traces[0], 1, progress);
  merge(count_collaboration(traces[1], 1, progress), statistics);
  EXPECT_EQ(fan_out_of_split(statistics, traces, 2, 1, progress)->mean, 8.0 / 8);
}

TEST(FanOutOfSplit, RefusesWhatDoesNotFitTheStatistics) {
  const Trace trace = small_trace();
  NoProgress progress;
  CollaborationStatistics statistics = count_collaboration(trace, 1, progress);
  EXPECT_EQ(error_of([&] { (void)fan_out_of_split(statistics, {}, 3, 1, progress); }),
            "4 experts cannot be split evenly over 3 ranks");
  CollaborationStatistics of_two = statistics;
  of_two.num_tokens.push_back(4);
  EXPECT_NE(error_of([&] {
              (void)fan_out_of_split(of_two, {&trace, 1}, 2, 1, progress);
            }).find("has 1 layers, but the statistics have 2"),
            std::string::npos);
  EXPECT_EQ(error_of([&] { (void)fan_out_of_split(of_two, {}, 2, 1, progress); }),
            "the statistics count the tokens of 2 layers and the pairs of 1");
  of_two.coactivation.emplace_back(3, 3);
  EXPECT_EQ(error_of([&] { (void)fan_out_of_split(of_two, {}, 2, 1, progress); }),
            "the pair counts are of 3 experts, but the placement is for 4");
}

// LLaMA-MoE split into contiguous halves and quarters; top-2, so that pair counts say everything.
TEST(FanOutOnRealData, IsThePublishedOne) {
  const auto matrix = [](const std::string& name) {
    return testing::real_data("c2r-official/llama_moe_3_5b_2_8_" + name + "_i64.npy");
  };
  C2R_SKIP_WITHOUT(matrix("base"));
  const auto mean_fan_out = [&](const std::string& name, std::int32_t ep_size) {
    const auto statistics =
        import_statistics({.format = "coactivation", .inputs = {matrix(name)}, .top_k = 2});
    NoProgress progress;
    return fan_out_of_split(statistics, {}, ep_size, 1, progress)->mean;
  };
  EXPECT_NEAR(mean_fan_out("base", 2), 1.585, 0.0005);
  EXPECT_NEAR(mean_fan_out("base", 4), 1.870, 0.0005);
  EXPECT_NEAR(mean_fan_out("topt_1", 2), 1.607, 0.0005);
  EXPECT_NEAR(mean_fan_out("topt_1", 4), 1.879, 0.0005);
}

}  // namespace
}  // namespace c2r
