// Text tables with aligned columns.
#pragma once

#include <string>
#include <vector>

namespace c2r {

/// @param rows the first row is the header, the first cell of a row its name
/// @returns the rows with columns two blanks apart. All columns but the first are aligned to the
///          right. Widths count code points, so that "±" has the width 1. Lines end in a newline
///          and have no trailing blanks. A table wider than kLineWidth (wrap.h) is folded: the
///          columns that do not fit follow below, after an empty line, beside the first column
///          again.
/// @throws Error(kInvalidArgument) if the rows have different numbers of cells
std::string render_table(const std::vector<std::vector<std::string>>& rows);

}  // namespace c2r
