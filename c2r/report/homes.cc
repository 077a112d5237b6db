// Writes a comparison of homes: the table, and the notes below it.
#include "c2r/report/homes.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "c2r/report/predictions.h"
#include "c2r/report/table.h"

namespace c2r {

std::string homes_table(const HomesComparison& comparison) {
  std::vector<std::vector<std::string>> rows = {
      {"homes by", "on the wire", "less", "busiest home", "in a window"}};
  const double uniform = mean_over_layers(comparison.rows.front().prediction.wire_copies_per_token);
  for (const HomesRow& row : comparison.rows) {
    const double wire = mean_over_layers(row.prediction.wire_copies_per_token);
    rows.push_back({row.name, fmt::format("{:.3f}", wire), saved_text(wire, uniform),
                    fmt::format("{:.3f}", row.imbalance),
                    fmt::format("{:.3f}", row.window_imbalance)});
  }
  const bool has_ids = std::ranges::any_of(
      comparison.rows, [](const HomesRow& row) { return row.name == "all token ids"; });
  return render_table(rows) +
         fmt::format(
             "prefix: by the first {} tokens of a sequence, which run on the ranks in turn; "
             "earlier turn: by as many that are known before; {}all tokens: as if all were known\n"
             "busiest home: its tokens over the mean, of all sequences, and in the worst window "
             "of {} that run together\n",
             comparison.num_tokens,
             has_ids ? "first token ids: by what as many tokens are; all token ids: by what all "
                       "tokens are, before any of them runs; "
                     : "",
             comparison.window);
}

Json homes_json(const HomesComparison& comparison) {
  Json rows = Json::array();
  for (const HomesRow& row : comparison.rows) {
    rows.push_back({{"homes", row.name},
                    {"wire_copies_per_token", row.prediction.wire_copies_per_token},
                    {"home_imbalance", row.imbalance},
                    {"window_imbalance", row.window_imbalance}});
  }
  return {{"num_tokens", comparison.num_tokens},
          {"window", comparison.window},
          {"rows", std::move(rows)}};
}

}  // namespace c2r
