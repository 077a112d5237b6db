// Tests of how many chunks a batch is cut into.
#include "c2r/dispatch/chunks.h"

#include <gtest/gtest.h>

namespace c2r {
namespace {

TEST(ChooseNumChunks, CutsWhereLinksAreSlowAndBatchesLarge) {
  // 100 ms to hide; reading again costs 100 x 8 / 400 = 2 ms a chunk: 100/C + 2.2 (C - 1) is least
  // for C = 7.
  EXPECT_EQ(choose_num_chunks({.waited_s = 0.1, .computed_s = 0.1, .rows_per_expert = 400}), 7);
  // 20 ms a chunk: 100/2 + 20.2 is more than 100/3 + 40.4 or 100.
  EXPECT_EQ(choose_num_chunks({.waited_s = 0.1, .computed_s = 0.1, .rows_per_expert = 40}), 2);
  EXPECT_EQ(choose_num_chunks({.waited_s = 0.1, .computed_s = 0.1, .rows_per_expert = 4e4}), 8);
}

TEST(ChooseNumChunks, LeavesABatchWholeWhereNothingIsGained) {
  EXPECT_EQ(choose_num_chunks({}), 1);
  // Fast links.
  EXPECT_EQ(choose_num_chunks({.waited_s = 0.003, .computed_s = 0.1, .rows_per_expert = 4000}), 1);
  // Nothing is computed meanwhile.
  EXPECT_EQ(choose_num_chunks({.waited_s = 0.1, .computed_s = 0, .rows_per_expert = 400}), 1);
  // Few rows: decoding.
  EXPECT_EQ(choose_num_chunks({.waited_s = 0.1, .computed_s = 0.1, .rows_per_expert = 1}), 1);
  // Messages would take longer than what they hide.
  EXPECT_EQ(choose_num_chunks({.waited_s = 1e-4, .computed_s = 1e-4, .rows_per_expert = 400}), 1);
}

}  // namespace
}  // namespace c2r
