// Tests of relabelling against all permutations, and of what it must leave as it is.
#include "c2r/placement/moves/relabel.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "c2r/core/testing.h"
#include "c2r/placement/measure.h"
#include "c2r/placement/moves/assignment.h"
#include "c2r/placement/search/optimize_testing_internal.h"
#include "c2r/placement/testing_internal.h"

namespace c2r {
namespace {

using testing::error_of;

Matrix<double> random_gains(std::int64_t n, std::mt19937_64& rng) {
  Matrix<double> gains(n, n);
  for (double& gain : gains.all()) gain = double(uniform_below(21, rng)) - 10;
  return gains;
}

double sum_of(MatrixView<const double> gain, std::span<const std::int32_t> column_of) {
  double sum = 0;
  for (std::int64_t row = 0; row < gain.rows(); ++row) sum += gain(row, at(column_of, row));
  return sum;
}

TEST(Assignment, IsTheBestOfAllPermutations) {
  for (unsigned seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 rng(seed);
    const auto gain = random_gains(1 + std::int64_t(seed % 7), rng);
    std::vector<std::int32_t> order(std::size_t(gain.rows()));
    std::iota(order.begin(), order.end(), 0);
    double best = -1e9;
    const auto columns = order;
    do best = std::max(best, sum_of(gain, order));
    while (std::next_permutation(order.begin(), order.end()));
    auto assigned = best_assignment(gain);
    EXPECT_EQ(sum_of(gain, assigned), best);
    std::ranges::sort(assigned);
    EXPECT_EQ(assigned, columns);
  }
}

TEST(Assignment, RefusesWhatItCannotAssign) {
  EXPECT_EQ(error_of([] { best_assignment(Matrix<double>(2, 3)); }),
            "an assignment needs as many rows as columns, not 2 and 3");
  Matrix<double> gain(1, 1);
  gain(0, 0) = std::numeric_limits<double>::infinity();
  EXPECT_EQ(error_of([&] { best_assignment(gain); }),
            "the gain inf of row 0 cannot be assigned: gains are finite");
  EXPECT_EQ(best_assignment(Matrix<double>(0, 0)), std::vector<std::int32_t>());
}

// All labels of ranks in which nodes stay whole.
std::vector<std::vector<RankId>> all_labels(const Cluster& cluster) {
  std::vector<std::int32_t> order(std::size_t(cluster.ep_size()));
  std::iota(order.begin(), order.end(), 0);
  std::vector<std::vector<RankId>> labels;
  do {
    bool keeps_nodes = true;
    std::vector<RankId> label_of;
    for (std::int32_t rank = 0; rank < cluster.ep_size(); ++rank) {
      label_of.push_back(RankId{at(order, rank)});
      const std::int32_t first = rank - rank % cluster.ranks_per_node;
      keeps_nodes &= cluster.node_of(label_of.back()) == cluster.node_of(at(label_of, first));
    }
    if (keeps_nodes) labels.push_back(label_of);
  } while (std::next_permutation(order.begin(), order.end()));
  return labels;
}

TEST(Relabelling, MovesAsFewExpertsAsTheBestOfAllLabels) {
  for (unsigned seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 rng(seed);
    const Cluster cluster = seed % 2 == 0 ? flat(1 + std::int32_t(seed % 5))
                                          : Cluster{.num_nodes = 3, .ranks_per_node = 2};
    const Placement from = testing::random_placement(9, cluster.ep_size(), 2, rng);
    const Placement to = testing::random_placement(9, cluster.ep_size(), 2, rng);
    std::int64_t fewest = INT64_MAX;
    for (const auto& labels : all_labels(cluster)) {
      fewest = std::min(fewest, num_moved_experts(from, relabelled(to, labels)));
    }
    EXPECT_EQ(num_moved_experts(from, with_fewest_moves(from, to, cluster)), fewest);
  }
}

TEST(Relabelling, LeavesCopiesAndLoadsAsTheyAre) {
  const Cluster cluster{.num_nodes = 2, .ranks_per_node = 2};
  const auto sets = random_sets(12, 3, 300, 1);
  std::mt19937_64 rng(2);
  const Placement from = testing::random_placement(12, 4, 0, rng),
                  to = testing::random_placement(12, 4, 0, rng);
  const auto before = measure_placement(sets, cluster, objective_for(cluster), to);
  const auto after = measure_placement(sets, cluster, objective_for(cluster),
                                       with_fewest_moves(from, to, cluster));
  EXPECT_EQ(after.copies_per_token, before.copies_per_token);
  EXPECT_EQ(after.node_copies_per_token, before.node_copies_per_token);
  EXPECT_EQ(after.imbalance, before.imbalance);
}

TEST(Relabelling, KeepsAnExpertThatStaysInItsSlot) {
  const Placement from = testing::make_placement(6, {{0, 1, 2}, {3, 4, 5}});
  const Placement to = testing::make_placement(6, {{5, 3, 0}, {2, 4, 1}});
  EXPECT_EQ(with_fewest_moves(from, to, flat(2)),
            testing::make_placement(6, {{4, 1, 2}, {3, 0, 5}}));
  EXPECT_EQ(num_moved_experts(from, to), 4);
  EXPECT_EQ(with_fewest_moves(from, from, flat(2)), from);
  const std::vector<std::vector<std::int32_t>> twice = {{5, 3, 3}, {2, 4, 1}, {0, 1, 2}},
                                               kept = {{0, 1, 2}, {3, 3, 5}, {1, 4, 2}};
  const Placement three = testing::make_placement(6, {{0, 1, 2}, {3, 4, 5}, {1, 4, 0}});
  EXPECT_EQ(with_fewest_moves(three, placement_of_ranks(6, twice), flat(3)),
            placement_of_ranks(6, kept))
      << "an expert that a rank holds twice stays once";
}

TEST(Relabelling, FindsTheSlotsThatPlacementsDoNotAgreeOn) {
  const Placement one = testing::make_placement(6, {{0, 1, 2}, {3, 4, 5}});
  const Placement other = testing::make_placement(6, {{5, 3, 0}, {2, 4, 1}});
  // The ranks of the other are exchanged: 4 1 2 and 3 0 5.
  EXPECT_EQ(differing_slots(one, other, flat(2)), (std::vector<std::int32_t>{0, 4}));
  EXPECT_TRUE(differing_slots(one, one, flat(2)).empty());
  const Placement more = testing::make_placement(6, {{0, 1, 2, 3}, {3, 4, 5, 0}});
  EXPECT_EQ(error_of([&] { differing_slots(one, more, flat(2)); }),
            "placements of 3 and 4 slots a rank cannot be compared slot by slot");
}

TEST(Relabelling, RefusesOtherRanksAndLabels) {
  const Placement two = testing::make_placement(4, {{0, 1}, {2, 3}});
  const Placement four = testing::make_placement(4, {{0}, {1}, {2}, {3}});
  EXPECT_EQ(error_of([&] { num_moved_experts(two, four); }),
            "a placement of 4 experts on 4 ranks cannot replace one of 4 experts on 2 ranks");
  EXPECT_EQ(error_of([&] { with_fewest_moves(two, two, flat(4)); }),
            "there are 2 x 2 gains for labels of 4 ranks");
  const RankId twice[] = {RankId{0}, RankId{0}};
  EXPECT_EQ(error_of([&] { relabelled(two, twice); }),
            "rank 1 gets the label 0, which is no rank or is given twice");
}

}  // namespace
}  // namespace c2r
