// A worked example: two nodes of one rank and timings that can be checked by hand.
#include "c2r/bench/layer_summary.h"

#include <gtest/gtest.h>

#include "c2r/bench/bench_model.h"
#include "c2r/bench/median.h"
#include "c2r/core/testing.h"

namespace c2r {
namespace {

TEST(Median, IsTheMiddle) {
  EXPECT_EQ(median({}), 0);
  EXPECT_EQ(median({3, 1, 2}), 2);
  EXPECT_EQ(median({4, 1, 2, 3}), 2.5);
}

Matrix<std::int64_t> bytes_between(std::int64_t to_second, std::int64_t to_first) {
  Matrix<std::int64_t> bytes(2, 2);
  bytes(0, 1) = to_second, bytes(1, 0) = to_first;
  return bytes;
}

TEST(LayerSummary, IsThatOfTheWorkedExample) {
  LayerProblem problem{.shape = {"small", 8, 2, 10, 4, 5},
                       .cluster = {.num_nodes = 2, .ranks_per_node = 1}};
  problem.cluster.inter_node.bandwidth_bytes_per_s = 1000;
  VariantResult result{.metadata_bytes = bytes_between(1, 2),
                       .dispatch_bytes = bytes_between(3000, 500),
                       .combine_bytes = bytes_between(500, 3000),
                       .max_rows = 7,
                       .seconds = {3, 1, 2},
                       .compute_seconds = {0.5, 0.25, 1},
                       .phase_seconds = Matrix<double>(2, std::int64_t(kNumPhases), 0.5)};
  const VariantResult baseline{.seconds = {4, 5, 4}};
  const LayerSummary s = summarize(problem, 3, result, baseline);
  EXPECT_EQ(s.median_s, 2);
  EXPECT_EQ(s.min_s, 1);
  EXPECT_EQ(s.compute_s, 0.25);
  EXPECT_EQ(s.ratio, 0.5);
  EXPECT_EQ(s.best_ratio, 0.25);
  EXPECT_EQ(s.links_s, 3 + 3);                    // 3000 bytes there and back
  EXPECT_EQ(s.exchange_s, 7 * 0.5);               // of nine phases two compute experts
  EXPECT_EQ(s.bytes_per_s, (3000 + 3000) / 3.5);  // a rank sends or receives 3000, twice
  EXPECT_EQ(s.busiest_flop, 6.0 * 10 * (7 * 4 + 3 * 5));
  EXPECT_EQ(s.dispatch_bytes, 3500);
  EXPECT_EQ(s.combine_bytes, 3500);
  EXPECT_EQ(s.metadata_bytes, 3);
}

TEST(PhaseRates, AreThoseOfTheMedianRound) {
  const PhaseRates rates =
      rates_of({.num_tokens = 12, .seconds = {4, 1, 2}, .flop = 100, .weight_bytes = 50});
  EXPECT_EQ(rates.tokens_per_s, 6);
  EXPECT_EQ(rates.flop_per_s, 50);
  EXPECT_EQ(rates.weight_bytes_per_s, 25);
  EXPECT_EQ(rates.slowest_tokens_per_s, 3);
  EXPECT_EQ(rates.fastest_tokens_per_s, 12);
  EXPECT_EQ(testing::error_of([] { (void)rates_of({}); }), "no round of the phase was timed");
}

}  // namespace
}  // namespace c2r
