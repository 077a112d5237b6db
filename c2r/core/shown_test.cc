// Tests that text of files cannot break the line or the terminal of a message.
#include "c2r/core/shown.h"

#include <gtest/gtest.h>

namespace c2r {
namespace {

TEST(Shown, LeavesPlainTextAlone) {
  EXPECT_EQ(shown("layers.0.topk_idx"), "layers.0.topk_idx");
}

TEST(Shown, EscapesWhatWouldBreakTheLineOrTheTerminal) {
  EXPECT_EQ(shown(std::string_view("a\nb\0\x1b[1m\xff", 9)), "a\\nb\\x00\\x1b[1m\\xff");
}

TEST(Shown, ShortensToTheLimit) {
  EXPECT_EQ(shown("123456789", 9), "123456789");
  EXPECT_EQ(shown("1234567890", 9), "123456...");
  EXPECT_EQ(shown(std::string(1000, '\xff')).size(), 60u);
}

}  // namespace
}  // namespace c2r
