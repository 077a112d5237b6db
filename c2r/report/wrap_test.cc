// Checks where lines of text are broken.
#include "c2r/report/wrap.h"

#include <gtest/gtest.h>

namespace c2r {
namespace {

TEST(WrapText, BreaksBetweenWordsAtTheLastColumn) {
  const std::string word(39, 'a');
  EXPECT_EQ(wrap_text(word + " " + word + "a"), word + " " + word + "a");     // 80 columns
  EXPECT_EQ(wrap_text(word + " " + word + "aa"), word + "\n" + word + "aa");  // 81 columns
}

TEST(WrapText, IndentsTheLinesThatFollow) {
  const std::string word(50, 'a');
  EXPECT_EQ(wrap_text(word + " b\n" + word + " " + word, 25),
            word + " b\n" + std::string(25, ' ') + word + "\n" + std::string(25, ' ') + word);
}

TEST(WrapText, KeepsLineEndsEmptyLinesAndTheIndentOfALine) {
  const std::string word(50, 'a');
  EXPECT_EQ(wrap_text("a\n\n  b\n"), "a\n\n  b\n");
  EXPECT_EQ(wrap_text("  " + word + " " + word), "  " + word + "\n  " + word);
}

TEST(WrapText, KeepsLongWordsWholeAndCountsCodePoints) {
  const std::string word(100, 'a');
  EXPECT_EQ(wrap_text(word + " " + word), word + "\n" + word);
  std::string wide;  // 80 columns of two bytes each
  for (int i = 0; i < 78; ++i) wide += "±";
  EXPECT_EQ(wrap_text(wide + " b"), wide + " b");
}

}  // namespace
}  // namespace c2r
