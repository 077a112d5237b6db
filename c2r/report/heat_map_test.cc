// Checks averaged cells and drawn heat maps.
#include "c2r/report/heat_map.h"

#include <gtest/gtest.h>

#include "c2r/core/testing.h"

namespace c2r {
namespace {

TEST(RenderHeatMap, ShadesFromBlankToSolid) {
  Matrix<double> values(3, 3);
  values(0, 0) = 1, values(0, 1) = 0.5, values(0, 2) = 0.2;
  values(1, 0) = 7, values(2, 2) = 0.75;
  EXPECT_EQ(render_heat_map(values, 1, HeatMapStyle::kBlocks), "██▒▒░░\n██\n    ▓▓\n");
  EXPECT_EQ(render_heat_map(values, 1, HeatMapStyle::kAscii), "##::..\n##\n    **\n");
}

TEST(RenderHeatMap, AveragesWhatDoesNotFit) {
  Matrix<double> values(5, 5);
  for (std::int64_t r = 0; r < 2; ++r) {
    for (std::int64_t c = 0; c < 2; ++c) values(r, c) = 1;
  }
  values(2, 2) = 9;  // one of the nine elements of the last cell
  EXPECT_EQ(render_heat_map(average_cells(values, 2), 1, HeatMapStyle::kBlocks), "██\n  ██\n");
}

TEST(RenderHeatMap, ResetsTheColorAfterEveryLine) {
  const std::string text = render_heat_map(Matrix<double>(1, 1, 1.0), 1, HeatMapStyle::kColors);
  EXPECT_EQ(text, "\x1b[48;5;226m  \x1b[0m\n");
}

TEST(RenderHeatMap, RefusesAScaleThatIsNotPositive) {
  EXPECT_EQ(
      testing::error_of([] { render_heat_map(Matrix<double>(1, 1), 0, HeatMapStyle::kBlocks); }),
      "the heat map's full value is 0, not positive");
}

}  // namespace
}  // namespace c2r
