// A worked example of what is lost with each rank.
#include "c2r/plan/survival.h"

#include <gtest/gtest.h>

#include "c2r/placement/testing_internal.h"

namespace c2r {
namespace {

TEST(LossesOfRanks, CountExpertsThatNoOtherRankHolds) {
  // Layer 0 has two slots of expert 1; in layer 1 both ranks hold all experts but expert 0, in
  // whose place rank 1 has an empty slot.
  const auto placed = [](const std::vector<std::vector<std::int32_t>>& ranks) {
    return placement_of_ranks(3, ranks);
  };
  const Plan plan{.num_experts = 3,
                  .cluster = {.ranks_per_node = 2},
                  .layers = {{.placement = placed({{0, 1}, {2, 1}})},
                             {.placement = placed({{0, 1, 2}, {2, 1, -1}})}}};
  EXPECT_EQ(losses_of_ranks(plan), (std::vector<RankLoss>{{2, 2}, {1, 1}}));
}

}  // namespace
}  // namespace c2r
