// Draws a matrix of shares as a heat map for the terminal.
#pragma once

#include <string>

#include "c2r/core/matrix.h"

namespace c2r {

/// @param values [n, n]
/// @returns a matrix with at most `max_cells` rows and columns, each element the mean of the
///          elements that it stands for
Matrix<double> average_cells(MatrixView<const double> values, std::int64_t max_cells);

enum class HeatMapStyle {
  kAscii,   // " .:*#", for terminals that show nothing else
  kBlocks,  // blank, three shades and solid
  kColors,  // the palette of 256 colours
};

/// Draws each row as a line, with two characters for each element: from blank for 0 to solid for
/// `full` and more. Lines end in a newline and have no trailing blanks.
/// @param values [n, n]
/// @throws Error(kInvalidArgument) if `full` is not positive
std::string render_heat_map(MatrixView<const double> values, double full, HeatMapStyle style);

}  // namespace c2r
