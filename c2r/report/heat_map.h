// A matrix of shares as a picture in the terminal.
#pragma once

#include <string>

#include "c2r/core/matrix.h"

namespace c2r {

struct HeatMapOptions {
  bool has_color = false;  // 256-colour escape codes; otherwise five shades of block characters
  std::int64_t max_cells = 64;  // rows and columns drawn at most; larger matrices are averaged
};

/// Draws `values` [n, n], one line a row and two characters a cell, from 0 (blank) to `full`
/// (solid); larger values are solid too. Lines end in a newline and have no trailing blanks.
/// @throws Error(kInvalidArgument) if `full` is not positive
std::string render_heat_map(MatrixView<const double> values, double full,
                            const HeatMapOptions& options);

}  // namespace c2r
