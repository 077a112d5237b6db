// Tests of the words for intervals of savings.
#include "c2r/report/savings.h"

#include <gtest/gtest.h>

namespace c2r {
namespace {

TEST(SavingsLine, SaysIntervalsAndHowManySequences) {
  const SavedIntervals saved{.num_sequences = 312,
                             .num_blocks = 64,
                             .copies = {0.2418, 0.26},
                             .time = Interval{-0.012, 0.1521}};
  EXPECT_EQ(savings_line("placement", saved),
            "placement saves 24.2 to 26.0 % of the copies and -1.2 to 15.2 % of the time (95 % of "
            "200 resamples of 312 sequences)\n");
  EXPECT_EQ(savings_line("placement", std::nullopt), "");
}

TEST(SavingsLine, WarnsOfFewSequences) {
  const SavedIntervals saved{
      .num_sequences = 40, .num_blocks = 40, .copies = {0.25, 0.25}, .time = {}};
  EXPECT_EQ(savings_line("p.json", saved),
            "p.json saves 25.0 % of the copies (95 % of 200 resamples of 40 sequences)\n"
            "few sequences: other texts may differ more; record 100 or more\n");
}

TEST(SavingsJson, HasBothEnds) {
  const SavedIntervals saved{
      .num_sequences = 40, .num_blocks = 40, .copies = {0.25, 0.5}, .time = {}};
  const Json json = savings_json(saved);
  EXPECT_EQ(json["saved_copies"], Json({0.25, 0.5}));
  EXPECT_TRUE(json["saved_time"].is_null());
  EXPECT_EQ(json["num_resamples"], 200);
}

}  // namespace
}  // namespace c2r
