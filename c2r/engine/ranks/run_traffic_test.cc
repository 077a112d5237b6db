// Tests of what a run's traffic is per token, and of the prediction that it is compared with.
#include "c2r/engine/ranks/run_traffic.h"

#include <gtest/gtest.h>

namespace c2r {
namespace {

Matrix<std::int64_t> bytes_of(const std::vector<std::vector<std::int64_t>>& rows) {
  Matrix<std::int64_t> bytes(std::ssize(rows), std::ssize(rows));
  for (std::size_t src = 0; src < rows.size(); ++src) {
    std::ranges::copy(rows[src], bytes.row(std::int64_t(src)).begin());
  }
  return bytes;
}

// 5 tokens through 2 layers on 2 nodes of 2 ranks: 40 bytes in nodes, 80 between them, 10 of lists.
TEST(RunTraffic, IsDividedByTokensAndLayers) {
  const RunTraffic traffic{
      .cluster = {.num_nodes = 2, .ranks_per_node = 2},
      .num_tokens = 5,
      .num_layers = 2,
      .elapsed_s = 0.5,
      .row_bytes = bytes_of({{0, 30, 20, 0}, {10, 0, 0, 40}, {0, 0, 0, 0}, {20, 0, 0, 0}}),
      .sent_bytes = bytes_of({{0, 31, 22, 0}, {10, 0, 0, 40}, {3, 0, 0, 4}, {20, 0, 0, 0}})};
  EXPECT_EQ(traffic.tokens_per_s(), 10);
  EXPECT_EQ(traffic.row_bytes_per_token().intra_node, 4);
  EXPECT_EQ(traffic.row_bytes_per_token().inter_node, 8);
  EXPECT_EQ(traffic.row_bytes_per_token().wire(), 12);
  EXPECT_EQ(traffic.other_bytes_per_token(), 1);
}

TEST(RunTraffic, IsNothingWithoutTokens) {
  const RunTraffic traffic;
  EXPECT_EQ(traffic.tokens_per_s(), 0);
  EXPECT_EQ(traffic.per_token(7), 0);
}

Plan predicting_plan() {
  Plan plan;
  plan.predictions.push_back({.placement = "deduplication", .wire_copies_per_token = {9, 9}});
  plan.predictions.push_back({.placement = "placement",
                              .trace = "text, odd",
                              .copy_mode = CopyMode::kPerNode,
                              .copies_per_token = {2, 3},
                              .wire_copies_per_token = {1, 2},
                              .inter_node_copies_per_token = {0.25, 0.75}});
  return plan;
}

// 1.5 copies on the wire, of which 0.5 between nodes; 8 values of 2 bytes, there and back.
TEST(PredictedTraffic, IsThatOfThePlansOwnPlacement) {
  DispatchOptions how{.row_type = ElementType::kBf16};
  how.traffic.copy_mode = CopyMode::kPerNode;
  const auto predicted = predicted_traffic(predicting_plan(), how, 8);
  ASSERT_TRUE(predicted);
  EXPECT_EQ(predicted->row_bytes_per_token.intra_node, 32);
  EXPECT_EQ(predicted->row_bytes_per_token.inter_node, 16);
  EXPECT_EQ(predicted->trace, "text, odd");
  EXPECT_EQ(predicted->homes, Homes::kUniform);
}

TEST(PredictedTraffic, IsUnknownForAnotherCopyModeOrRuleOrFromLoads) {
  DispatchOptions how;
  how.traffic.copy_mode = CopyMode::kPerRank;
  EXPECT_FALSE(predicted_traffic(predicting_plan(), how, 8));
  how.traffic = {.copy_mode = CopyMode::kPerNode, .replica_rule = ReplicaRule::kRandom};
  EXPECT_FALSE(predicted_traffic(predicting_plan(), how, 8));
  how.traffic.replica_rule = ReplicaRule::kFewestRanks;
  EXPECT_TRUE(predicted_traffic(predicting_plan(), how, 8));
  Plan of_loads = predicting_plan();
  of_loads.predictions.back().copies_per_token.clear();
  EXPECT_FALSE(predicted_traffic(of_loads, how, 8));
  EXPECT_FALSE(predicted_traffic(Plan(), how, 8));
}

}  // namespace
}  // namespace c2r
