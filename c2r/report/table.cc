// Lays out tables with aligned columns, and folds those that are too wide.
#include "c2r/report/table.h"

#include <algorithm>
#include <string_view>

#include "c2r/core/error.h"
#include "c2r/report/wrap.h"

namespace c2r {
namespace {

constexpr std::string_view kGap = "  ";

// The columns that are shown side by side: in each block the first column, and as many of the
// others as fit.
std::vector<std::vector<std::size_t>> blocks_of(const std::vector<std::size_t>& widths) {
  std::vector<std::vector<std::size_t>> blocks = {{0}};
  std::size_t used = widths[0];
  for (std::size_t c = 1; c < widths.size(); ++c) {
    if (used + kGap.size() + widths[c] > kLineWidth && blocks.back().size() > 1) {
      blocks.push_back({0});
      used = widths[0];
    }
    blocks.back().push_back(c);
    used += kGap.size() + widths[c];
  }
  return blocks;
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
  for (const auto& columns : blocks_of(widths)) {
    if (!text.empty()) text += '\n';
    for (const auto& row : rows) {
      std::string line;
      for (const std::size_t c : columns) {
        const std::string blanks(widths[c] - width_of(row[c]), ' ');
        line += c == 0 ? row[c] + blanks : std::string(kGap) + blanks + row[c];
      }
      line.erase(line.find_last_not_of(' ') + 1);
      text += line + "\n";
    }
  }
  return text;
}

}  // namespace c2r
