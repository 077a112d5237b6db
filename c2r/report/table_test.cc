// Checks the layout of tables.
#include "c2r/report/table.h"

#include <gtest/gtest.h>

#include "c2r/core/testing.h"

namespace c2r {
namespace {

TEST(RenderTable, AlignsNamesLeftAndNumbersRight) {
  EXPECT_EQ(render_table({{"layer", "load", ""}, {"0", "1.5", ""}, {"mean", "12.25", "±1"}}),
            "layer   load\n"
            "0        1.5\n"
            "mean   12.25  ±1\n");
}

TEST(RenderTable, FoldsColumnsThatDoNotFit) {
  const std::string wide(36, 'w');
  EXPECT_EQ(render_table({{"n", wide, wide, "xx"}, {"1", "2", "3", "4"}}),  // 81 wide
            "n  " + wide + "  " + wide + "\n1  " + std::string(35, ' ') + "2  " +
                std::string(35, ' ') + "3\n\nn  xx\n1   4\n");
}

TEST(RenderTable, ShowsAColumnThatIsWiderThanALine) {
  const std::string wide(90, 'w');
  EXPECT_EQ(render_table({{"n", wide}, {"1", "2"}}),
            "n  " + wide + "\n1  " + std::string(89, ' ') + "2\n");
}

TEST(RenderTable, RefusesRaggedRows) {
  EXPECT_EQ(testing::error_of([] {
              render_table({{"a", "b"}, {"c"}});
            }),
            "a table row has 1 cells, but the header has 2");
}

}  // namespace
}  // namespace c2r
