// Tests of placements: their invariants, and the conversions between slots and ranks.
#include "c2r/placement/placement.h"

#include <gtest/gtest.h>

#include "c2r/core/testing.h"
#include "c2r/placement/testing_internal.h"

namespace c2r {
namespace {

using testing::error_of;

// Experts 3 and 0 on rank 0, 2 and 1 on rank 1.
TEST(Placement, IsMadeOfRanksAndSaysTheRankOfEachExpert) {
  const Placement placement =
      placement_of_ranks(4, std::vector<std::vector<std::int32_t>>{{3, 0}, {2, 1}});
  EXPECT_EQ(placement.slots(0, 0), ExpertId{3});
  EXPECT_EQ(placement.slots(1, 1), ExpertId{1});
  EXPECT_EQ(rank_of(placement), (std::vector{RankId{0}, RankId{1}, RankId{1}, RankId{0}}));
  EXPECT_EQ(placement_of_ranks(0, {}).ep_size(), 0);
}

TEST(Placement, HasReplicasIfAnExpertHasSeveralSlots) {
  EXPECT_FALSE(has_replicas(testing::make_placement(4, {{0, 1}, {2, 3}})));
  EXPECT_TRUE(has_replicas(testing::make_placement(3, {{0, 1}, {2, 1}})));
  const auto with_empty_slots = [](const std::vector<std::vector<std::int32_t>>& ranks) {
    return placement_of_ranks(3, ranks);
  };
  EXPECT_FALSE(has_replicas(with_empty_slots({{0, -1}, {2, 1}})));
  EXPECT_TRUE(has_replicas(with_empty_slots({{0, 1, -1}, {2, 1, -1}})));
}

TEST(Placement, SaysWhichRankOrExpertDoesNotFit) {
  EXPECT_EQ(error_of([] {
              placement_of_ranks(4, std::vector<std::vector<std::int32_t>>{{0, 1}, {2, 3}, {1}});
            }),
            "rank 2 holds 1 experts, but rank 0 holds 2: every rank needs as many");
  EXPECT_EQ(error_of([] {
              rank_of(testing::make_placement(3, {{0, 1}, {2, 1}}));
            }),
            "expert 1 is on 2 ranks, but only placements without replicas have one rank an expert");
}

}  // namespace
}  // namespace c2r
