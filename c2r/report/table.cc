// Lays out tables with aligned columns.
#include "c2r/report/table.h"

#include <algorithm>

#include "c2r/core/error.h"

namespace c2r {
namespace {

std::size_t width_of(const std::string& cell) {  // continuation bytes of UTF-8 take no place
  return static_cast<std::size_t>(std::ranges::count_if(
      cell, [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

}  // namespace

std::string render_table(const std::vector<std::vector<std::string>>& rows) {
  if (rows.empty()) return "";
  std::vector<std::size_t> widths(rows[0].size(), 0);
  for (const auto& row : rows) {
    C2R_REQUIRE(row.size() == widths.size(), kInvalidArgument,
                "a table row has {} cells, but the header has {}", row.size(), widths.size());
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], width_of(row[c]));
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t c = 0; c < row.size(); ++c) {
      const std::string blanks(widths[c] - width_of(row[c]), ' ');
      line += (c == 0 ? "" : "  ") + (c == 0 ? row[c] + blanks : blanks + row[c]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

}  // namespace c2r
