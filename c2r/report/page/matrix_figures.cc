// Draws matrices of copies, each with the table of its numbers.
#include "c2r/report/page/matrix_figures.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "c2r/report/page/svg.h"

namespace c2r {
namespace {

struct CellNames {
  const char* row;                // "layer"
  const char* column;             // "rank"
  std::vector<std::string> rows;  // the name of each row; columns are numbered
};

// A matrix of copies in cells, the darker the more; `most` copies are the darkest.
Svg cells_picture(const Json& rows, const CellNames& names, const std::string& title, double most) {
  const auto num_rows = static_cast<double>(rows.size()),
             num_columns = static_cast<double>(rows[0].size());
  const double size = std::clamp(400 / std::max(num_rows, num_columns), 3.0, 34.0);
  Svg svg(60 + size * num_columns, 44 + size * num_rows, title);
  svg.text(50, 14, "start", title);
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const double y = 24 + size * static_cast<double>(r);
    if (size >= 12) svg.text(44, y + size / 2 + 4, "end", names.rows[r]);
    for (std::size_t c = 0; c < rows[r].size(); ++c) {
      const auto value = rows[r][c].get<double>();
      svg.cell(50 + size * static_cast<double>(c), y, size - 1, size - 1,
               most > 0 ? value / most : 0,
               fmt::format("{} {}, {} {}: {:.3f} copies", names.row, names.rows[r], names.column, c,
                           value));
    }
  }
  for (std::size_t c = 0; size >= 12 && c < rows[0].size(); ++c) {
    svg.text(50 + size * (static_cast<double>(c) + 0.5), 38 + size * num_rows, "middle",
             std::to_string(c));
  }
  return svg;
}

double largest_cell(const Json& rows) {
  double most = 0;
  for (const Json& row : rows) {
    for (const Json& value : row) most = std::max(most, value.get<double>());
  }
  return most;
}

double mean_row_sum(const Json& rows) {
  double sum = 0;
  for (const Json& row : rows) {
    for (const Json& value : row) sum += value.get<double>();
  }
  return sum / static_cast<double>(rows.size());
}

}  // namespace

Figure links_figure(const Json& report) {
  const Json &before = report.at("links").at("before"), &after = report.at("links").at("after");
  Figure figure{.name = "links",
                .title = "Who sends to whom",
                .caption = {},
                .table = {{"from", "to", "before", "after"}}};
  const double most = std::max(largest_cell(before), largest_cell(after));
  figure.caption = fmt::format(
      "Copies a token and layer from each rank (row) to each rank (column). The diagonal stays on "
      "its rank and crosses no link. The darkest cell of both pictures is {:.4f}.",
      most);
  CellNames names{.row = "from rank", .column = "to rank"};
  for (std::size_t r = 0; r < before.size(); ++r) names.rows.push_back(std::to_string(r));
  figure.pictures = {cells_picture(before, names, "before", most),
                     cells_picture(after, names, "under the plan", most)};
  for (std::size_t src = 0; src < before.size(); ++src) {
    for (std::size_t dst = 0; dst < before.size(); ++dst) {
      figure.table.push_back({std::to_string(src), std::to_string(dst),
                              fmt::format("{:.4f}", before[src][dst].get<double>()),
                              fmt::format("{:.4f}", after[src][dst].get<double>())});
    }
  }
  return figure;
}

Figure sequence_figure(const Json& report) {
  const Json& data = report.at("sequence");
  Figure figure{.name = "sequence",
                .title = "One sequence on its way",
                .caption = {},
                .table = {{"layer", "rank", "before", "after"}}};
  const Json &before = data.at("before"), &after = data.at("after");
  const double most = std::max(largest_cell(before), largest_cell(after));
  figure.caption = fmt::format(
      "Copies a token that each rank (column) receives in each layer (row) of sequence {}, {} "
      "tokens: {:.3f} copies of a token on all ranks in the mean before, {:.3f} under the plan. "
      "The darkest cell of both pictures is {:.3f}.",
      data.at("index").get<std::int64_t>(), data.at("num_tokens").get<std::int64_t>(),
      mean_row_sum(before), mean_row_sum(after), most);
  const CellNames names{.row = "layer", .column = "rank", .rows = layer_names_of(report)};
  figure.pictures = {cells_picture(before, names, "before", most),
                     cells_picture(after, names, "under the plan", most)};
  for (std::size_t layer = 0; layer < before.size(); ++layer) {
    for (std::size_t r = 0; r < before[layer].size(); ++r) {
      figure.table.push_back({names.rows[layer], std::to_string(r),
                              fmt::format("{:.3f}", before[layer][r].get<double>()),
                              fmt::format("{:.3f}", after[layer][r].get<double>())});
    }
  }
  return figure;
}

std::vector<std::string> layer_names_of(const Json& report) {
  std::vector<std::string> names;
  for (const Json& layer : report.at("layers")) {
    names.push_back(std::to_string(layer.at("layer_index").get<int>()));
  }
  return names;
}

}  // namespace c2r
