// Tests of the number of chunks that an engine chooses from the times of earlier passes.
#include "c2r/engine/ranks/pass_chunks.h"

#include <gtest/gtest.h>

namespace c2r {
namespace {

TEST(PassChunks, ArePredictedFromTheSecondPass) {
  PassChunks chunks(0.5);
  EXPECT_EQ(chunks.choose(512), 1);
  chunks.add(512, 10, 1);  // weights came from a disk
  EXPECT_EQ(chunks.choose(512), 1);
  chunks.add(0, 10, 1);  // a pass of no rank
  EXPECT_EQ(chunks.choose(512), 1);
  chunks.add(256, 0.256, 0.256);
  const OneChunkTimes of_512{.waited_s = 0.512, .computed_s = 0.512, .rows_per_expert = 256};
  EXPECT_GT(choose_num_chunks(of_512), 1);
  EXPECT_EQ(chunks.choose(512), choose_num_chunks(of_512));
  EXPECT_EQ(chunks.choose(1), 1);  // the next token of a text
  chunks.add(256, 0, 0.256);       // in several chunks
  EXPECT_EQ(chunks.choose(512), choose_num_chunks(of_512));
}

// The second pass of a run that generates is that of one token.
TEST(PassChunks, AreNotPredictedFromAMuchShorterPass) {
  PassChunks chunks(0.5);
  chunks.add(512, 10, 1);
  chunks.add(1, 1e-3, 1e-3);
  EXPECT_EQ(chunks.choose(512), 1);
  chunks.add(512, 0.512, 0.512);
  EXPECT_EQ(chunks.choose(512),
            choose_num_chunks({.waited_s = 0.512, .computed_s = 0.512, .rows_per_expert = 256}));
}

}  // namespace
}  // namespace c2r
