// Averages a matrix to fewer cells and draws it with blocks or colours.
#include "c2r/report/heat_map.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "c2r/core/error.h"

namespace c2r {
namespace {

// The level of a value in [0, num_levels): 0 is drawn blank, the last level is for `full` and more.
std::size_t level_of(double value, double full, std::size_t num_levels) {
  const double last = static_cast<double>(num_levels - 1);
  return static_cast<std::size_t>(std::lround(std::clamp(value / full, 0.0, 1.0) * last));
}

std::string shaded_cell(double value, double full, HeatMapStyle style) {
  static constexpr std::string_view kAscii[] = {"  ", "..", "::", "**", "##"};
  static constexpr std::string_view kBlocks[] = {"  ", "░░", "▒▒", "▓▓", "██"};
  const std::size_t level = level_of(value, full, std::size(kBlocks));
  return std::string(style == HeatMapStyle::kAscii ? kAscii[level] : kBlocks[level]);
}

std::string colored_cell(double value, double full) {
  // Colours of the terminal's palette from near black for small values over blue and magenta to
  // yellow.
  static constexpr int kColors[] = {233, 17, 18, 54, 90, 126, 162, 198, 203, 208, 214, 220, 226};
  return fmt::format("\x1b[48;5;{}m  ", kColors[level_of(value, full, std::size(kColors))]);
}

}  // namespace

Matrix<double> average_cells(MatrixView<const double> values, std::int64_t max_cells) {
  const std::int64_t size = std::min(values.rows(), max_cells);
  Matrix<double> cells(size, size);
  const auto begin = [&](std::int64_t cell) { return cell * values.rows() / size; };
  for (std::int64_t r = 0; r < size; ++r) {
    for (std::int64_t c = 0; c < size; ++c) {
      double sum = 0;
      for (std::int64_t row = begin(r); row < begin(r + 1); ++row) {
        for (std::int64_t col = begin(c); col < begin(c + 1); ++col) sum += values(row, col);
      }
      const std::int64_t area = (begin(r + 1) - begin(r)) * (begin(c + 1) - begin(c));
      cells(r, c) = sum / static_cast<double>(area);
    }
  }
  return cells;
}

std::string render_heat_map(MatrixView<const double> values, double full, HeatMapStyle style) {
  C2R_REQUIRE(full > 0, kInvalidArgument, "the heat map's full value is {}, not positive", full);
  const bool has_color = style == HeatMapStyle::kColors;
  std::string text;
  for (std::int64_t r = 0; r < values.rows(); ++r) {
    std::string line;
    for (const double value : values.row(r)) {
      line += has_color ? colored_cell(value, full) : shaded_cell(value, full, style);
    }
    if (has_color) {
      line += "\x1b[0m";
    } else {
      line.erase(line.find_last_not_of(' ') + 1);
    }
    text += line + "\n";
  }
  return text;
}

}  // namespace c2r
