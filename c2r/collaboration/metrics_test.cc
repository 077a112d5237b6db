// Tests of the metrics of collaboration and of the order of experts, against worked examples.
#include "c2r/collaboration/metrics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "c2r/collaboration/collaborators.h"
#include "c2r/collaboration/ordering.h"
#include "c2r/core/testing.h"

namespace c2r {
namespace {

CollaborationMatrix matrix_of(const std::vector<std::vector<std::int64_t>>& rows) {
  CollaborationMatrix matrix(std::ssize(rows), std::ssize(rows));
  for (std::size_t r = 0; r < rows.size(); ++r) {
    std::ranges::copy(rows[r], matrix.row(static_cast<std::int64_t>(r)).begin());
  }
  return matrix;
}

// Sums and products of a few numbers in double: 1e-12 is some thousand rounding errors.
constexpr double kTolerance = 1e-12;

// Expert 0 works with 1, 2 and 3 in the ratio 2:1:1, expert 3 with 0 alone.
//   H(0) = 0.5 ln 2 + 2 * 0.25 ln 4 = 1.5 ln 2, so exp(H) = 2^1.5; normalized: 1.5 ln 2 / ln 3.
TEST(LayerMetrics, MatchAWorkedExample) {
  const LayerMetrics m = layer_metrics(
      matrix_of({{40, 20, 10, 10}, {20, 20, 0, 0}, {10, 0, 10, 0}, {10, 0, 0, 10}}), true);
  EXPECT_EQ(m.num_choices, 80);
  EXPECT_NEAR(m.busiest_share, 0.5, kTolerance);
  EXPECT_NEAR(m.imbalance, 2.0, kTolerance);
  EXPECT_EQ(m.busiest_expert, 0);
  ASSERT_TRUE(m.experts[0].collaborators.has_value());
  EXPECT_NEAR(m.experts[0].collaborators->effective_collaborators, std::pow(2, 1.5), kTolerance);
  EXPECT_NEAR(m.experts[0].collaborators->normalized_entropy, 1.5 * std::log(2) / std::log(3),
              kTolerance);
  EXPECT_EQ(m.experts[0].collaborators->collaborators_90, 3);
  EXPECT_NEAR(m.experts[3].collaborators->effective_collaborators, 1, kTolerance);
  EXPECT_NEAR(m.experts[3].collaborators->specialization, 1, kTolerance);
  EXPECT_EQ(m.experts[3].collaborators->collaborators_90, 1);
  EXPECT_NEAR(m.collaborators->collaborators_90, (3.0 + 1 + 1 + 1) / 4, kTolerance);
}

TEST(LayerMetrics, CountExactlyWhoCoversNinetyPercent) {
  const auto ninety = [](std::vector<std::int64_t> counts) {
    CollaborationMatrix matrix(std::ssize(counts) + 1, std::ssize(counts) + 1);
    for (std::size_t b = 0; b < counts.size(); ++b) {
      const auto other = static_cast<std::int64_t>(b) + 1;
      matrix(0, other) = matrix(other, 0) = counts[b];
    }
    return layer_metrics(matrix, true).experts[0].collaborators->collaborators_90;
  };
  EXPECT_EQ(ninety({9, 1}), 1);
  EXPECT_EQ(ninety({899, 101}), 2);
  constexpr std::int64_t kMost = std::int64_t{31} << 47;  // of a row: 31 partners of 2^47 tokens
  EXPECT_EQ(ninety({kMost / 10 * 9 - 9, kMost / 10 + 9}), 2);
  EXPECT_EQ(ninety({kMost / 10 * 9 + 9, kMost / 10 - 9}), 1);
  EXPECT_EQ(ninety({1, 1, 1, 1, 1, 1, 1, 1, 1, 1}), 9);
}

TEST(LayerMetrics, LeaveOutExpertsWithoutCollaborators) {
  const LayerMetrics m = layer_metrics(matrix_of({{3, 3, 0}, {3, 3, 0}, {0, 0, 0}}), true);
  EXPECT_EQ(m.num_unused_experts, 1);
  EXPECT_FALSE(m.experts[2].collaborators.has_value());
  EXPECT_NEAR(m.collaborators->effective_collaborators, 1, kTolerance);
  const LayerMetrics empty = layer_metrics(CollaborationMatrix(3, 3), true);
  EXPECT_FALSE(empty.collaborators.has_value());
  EXPECT_EQ(empty.imbalance, 1);
  const LayerMetrics loads = layer_metrics(matrix_of({{3, 0}, {0, 1}}), false);
  EXPECT_FALSE(loads.collaborators.has_value());
  EXPECT_NEAR(loads.imbalance, 1.5, kTolerance);
}

TEST(LayerMetrics, StayWithinTheirBounds) {
  const LayerMetrics even = layer_metrics(CollaborationMatrix(9, 9, 7), true);
  EXPECT_NEAR(even.collaborators->effective_collaborators, 8, kTolerance);
  EXPECT_LE(even.collaborators->normalized_entropy, 1);
  EXPECT_NEAR(even.collaborators->normalized_entropy, 1, kTolerance);
  EXPECT_NEAR(even.imbalance, 1, kTolerance);
}

TEST(RankCollaborators, BreaksTiesByLowerIdAndLeavesOutTheExpertItself) {
  const auto ranked =
      rank_collaborators(matrix_of({{9, 2, 5, 2}, {2, 9, 0, 0}, {5, 0, 9, 1}, {2, 0, 1, 9}}));
  const std::vector<std::vector<int>> expected = {{2, 1, 3}, {0, 2, 3}, {0, 3, 1}, {0, 2, 1}};
  for (std::int64_t e = 0; e < 4; ++e) {
    for (std::int64_t i = 0; i < 3; ++i) {
      EXPECT_EQ(ranked(e, i),
                ExpertId{expected[static_cast<std::size_t>(e)][static_cast<std::size_t>(i)]});
    }
  }
  EXPECT_EQ(rank_collaborators(CollaborationMatrix(1, 1)).cols(), 0);
}

// Experts 0, 2, 4 choose each other, and 1, 3, 5; the order must not mix them.
TEST(OrderByCollaboration, PutsGroupsTogether) {
  CollaborationMatrix counts(6, 6);
  for (std::int64_t a = 0; a < 6; ++a) {
    for (std::int64_t b = 0; b < 6; ++b) counts(a, b) = a == b ? 100 : (a + b) % 2 == 0 ? 50 : 1;
  }
  const auto order = order_by_collaboration(counts);
  ASSERT_EQ(order.size(), 6u);
  for (std::size_t i = 1; i < 6; ++i) {
    const bool is_same_group =
        (static_cast<int>(order[i]) - static_cast<int>(order[i - 1])) % 2 == 0;
    EXPECT_EQ(is_same_group, i != 3) << "at " << i;
  }
  auto sorted = order;
  std::ranges::sort(sorted);
  for (std::int32_t e = 0; e < 6; ++e) EXPECT_EQ(sorted[static_cast<std::size_t>(e)], ExpertId{e});
}

// A chain 0-3-1-2 in which each works with its neighbours only: turning keeps neighbours adjacent.
TEST(OrderByCollaboration, TurnsClustersSoThatNeighboursMeet) {
  CollaborationMatrix counts(4, 4);
  for (std::int64_t e = 0; e < 4; ++e) counts(e, e) = 100;
  const auto link = [&](int a, int b, std::int64_t n) { counts(a, b) = counts(b, a) = n; };
  link(0, 3, 50), link(1, 2, 40), link(3, 1, 30);
  const auto order = order_by_collaboration(counts);
  const std::vector<ExpertId> chain = {ExpertId{0}, ExpertId{3}, ExpertId{1}, ExpertId{2}};
  EXPECT_EQ(order, chain);
}

// Every expert is chosen by 100 tokens, expert 4 by 400; so its similarity is the count / 200, that
// of the others the count / 100. Merges, with the average over all pairs of the two clusters:
//   {0} {1}        0.9
//   {0 1} {4}      (0.4 + 0.8) / 2 = 0.6; {0 1} {2} has (0 + 0.8) / 2 = 0.4
//   {0 1 4} {2}    (0 + 0.8 + 0) / 3 = 0.267; {0 1 4} {3} has (0.2 + 0 + 0.4) / 3 = 0.2
//   {0 1 4 2} {3}  at 0, whose similarity to 3 is 0.2; at 2 it is 0
// Clusters that count alike whatever their sizes have 0.2 and 0.25 in the third step, and would
// join 3 before 2. The largest, the least and plain counts instead of cosines give other orders,
// too.
TEST(OrderByCollaboration, JoinsByTheAverageOverAllPairs) {
  CollaborationMatrix counts(5, 5);
  for (std::int64_t e = 0; e < 5; ++e) counts(e, e) = e == 4 ? 400 : 100;
  const auto link = [&](int a, int b, std::int64_t n) { counts(a, b) = counts(b, a) = n; };
  link(0, 1, 90), link(1, 2, 80), link(0, 3, 20), link(0, 4, 80), link(1, 4, 160), link(3, 4, 80);
  const std::vector<ExpertId> expected = {ExpertId{2}, ExpertId{4}, ExpertId{1}, ExpertId{0},
                                          ExpertId{3}};
  EXPECT_EQ(order_by_collaboration(counts), expected);
}

// In a chain only neighbours work together, so there is one right order, and its reverse.
TEST(OrderByCollaboration, RecoversAnyChain) {
  for (unsigned seed = 0; seed < 50; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    std::mt19937 rng(seed);
    std::vector<ExpertId> chain;
    for (std::int32_t e = 0; e < 9; ++e) chain.push_back(ExpertId{e});
    std::ranges::shuffle(chain, rng);
    CollaborationMatrix counts(9, 9);
    for (std::int64_t e = 0; e < 9; ++e) counts(e, e) = 1000;
    for (std::size_t i = 1; i < chain.size(); ++i) {
      const auto a = static_cast<std::int64_t>(chain[i - 1]);
      const auto b = static_cast<std::int64_t>(chain[i]);
      counts(a, b) = counts(b, a) = 1 + static_cast<std::int64_t>(rng() % 500);
    }
    auto order = order_by_collaboration(counts);
    if (order.front() != chain.front()) std::ranges::reverse(order);
    EXPECT_EQ(order, chain);
  }
}

TEST(Metrics, RefuseCountsThatAreNotSquare) {
  const CollaborationMatrix wide(3, 4), tall(4, 3);
  const std::string expected = "a collaboration matrix is square, not 4x3";
  EXPECT_EQ(testing::error_of([&] { (void)layer_metrics(tall, true); }), expected);
  EXPECT_EQ(testing::error_of([&] { (void)order_by_collaboration(tall); }), expected);
  EXPECT_EQ(testing::error_of([&] { (void)rank_collaborators(tall); }), expected);
  EXPECT_EQ(testing::error_of([&] { (void)layer_metrics(wide, true); }),
            "a collaboration matrix is square, not 3x4");
}

}  // namespace
}  // namespace c2r
