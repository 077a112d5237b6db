// Tables for people: columns aligned, numbers to the right.
#pragma once

#include <string>
#include <vector>

namespace c2r {

/// Lays out rows of cells in columns two blanks apart. The first row is the header. A column is
/// aligned to the right, but for the first, which names the row. Widths count code points, so
/// that "%" and "±" take one place each. Lines end in a newline and have no trailing blanks.
/// @throws Error(kInvalidArgument) if the rows have different numbers of cells
std::string render_table(const std::vector<std::vector<std::string>>& rows);

}  // namespace c2r
