// Tests of collaborator lists: their order, their checks, and those that are too short.
#include "c2r/collaboration/collaborators.h"

#include <gtest/gtest.h>

#include "c2r/core/testing.h"

namespace c2r {
namespace {

using testing::error_of;

// Expert 0 was chosen with 1 three times and with 2 once; 3 with nobody.
CollaborationMatrix worked_counts() {
  CollaborationMatrix counts(4, 4);
  counts(0, 0) = 4, counts(1, 1) = 3, counts(2, 2) = 1, counts(3, 3) = 2;
  counts(0, 1) = counts(1, 0) = 3, counts(0, 2) = counts(2, 0) = 1;
  return counts;
}

TEST(TopCollaborators, AreTheFirstOfTheRanking) {
  const auto lists = top_collaborators(worked_counts(), 2);
  ASSERT_EQ(lists.rows(), 4);
  ASSERT_EQ(lists.cols(), 2);
  EXPECT_EQ(lists(0, 0), ExpertId{1});
  EXPECT_EQ(lists(0, 1), ExpertId{2});
  EXPECT_EQ(lists(3, 0), ExpertId{0});  // of equals the lower id
  const auto ranked = rank_collaborators(worked_counts());
  for (std::int64_t e = 0; e < 4; ++e) {
    EXPECT_TRUE(std::ranges::equal(lists.row(e), ranked.row(e).first(2)));
  }
  EXPECT_EQ(error_of([] { (void)top_collaborators(worked_counts(), 4); }),
            "top_t 4 is not in [1, 3], the other experts");
}

TEST(CountShortLists, CountsListsThatNeedExpertsNeverMet) {
  const std::vector<CollaborationMatrix> counts(2, worked_counts());
  const std::int32_t layers[] = {1, 5};
  const ShortLists one = count_short_lists(layers, counts, 1),
                   two = count_short_lists(layers, counts, 2);
  EXPECT_EQ(one.num_short, 2);  // expert 3, in each layer
  EXPECT_EQ(two.num_short, 6);  // all but expert 0
  EXPECT_EQ(two.num_lists, 8);
  EXPECT_EQ(short_lists_text(two, 2, "--top-t"),
            "6 of 8 experts were chosen together with fewer than 2 others; their lists are filled "
            "up by expert id: count more tokens, or take a smaller --top-t");
  std::vector<CollaborationMatrix> none = counts;
  none[1] = CollaborationMatrix(4, 4);
  EXPECT_EQ(error_of([&] { (void)count_short_lists(layers, none, 1); }),
            "layer 5: no token chose two experts, so nothing is known of collaborators");
}

TEST(CountShortLists, RefusesPartsThatDoNotFit) {
  const std::vector<std::int32_t> layers = {3, 4};
  const std::vector<CollaborationMatrix> one(1, CollaborationMatrix(3, 3)),
      wide = {CollaborationMatrix(1, 2), CollaborationMatrix(1, 2)};
  EXPECT_EQ(error_of([&] { (void)count_short_lists(layers, one, 1); }),
            "there are counts of 1 layers, but 2 layer indices");
  EXPECT_EQ(error_of([&] { (void)count_short_lists(layers, wide, 1); }),
            "a collaboration matrix is square, not 1x2");
}

TEST(CheckTopT, TakesWhatATokenNeedsUpToTheOtherExperts) {
  const TraceHeader header{.num_experts = 8, .top_k = 4};
  EXPECT_EQ(least_top_t(1), 1);
  EXPECT_EQ(least_top_t(4), 3);
  check_top_t(3, header), check_top_t(7, header);
  EXPECT_EQ(
      error_of([&] { check_top_t(2, header); }),
      "top_t 2 is not in [3, 7]: a token of top-4 needs 3 collaborators, and an expert has 7");
  EXPECT_EQ(
      error_of([&] { check_top_t(8, header, "--top-t"); }),
      "--top-t 8 is not in [3, 7]: a token of top-4 needs 3 collaborators, and an expert has 7");
}

}  // namespace
}  // namespace c2r
