// A matrix of shares as a picture in the terminal.
#pragma once

#include <string>

#include "c2r/core/matrix.h"

namespace c2r {

/// `values` [n, n] with at most `max_cells` rows and columns: each the mean of what falls into it.
Matrix<double> average_cells(MatrixView<const double> values, std::int64_t max_cells);

/// Draws `values` [n, n], one line a row and two characters a cell, from 0 (blank) to `full`
/// (solid); larger values are solid too. Lines end in a newline and have no trailing blanks.
/// @param has_color 256-colour escape codes; otherwise five shades of block characters
/// @throws Error(kInvalidArgument) if `full` is not positive
std::string render_heat_map(MatrixView<const double> values, double full, bool has_color);

}  // namespace c2r
