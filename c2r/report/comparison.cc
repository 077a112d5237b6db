// Writes a comparison as a table and as JSON: the columns, and the notes below the table.
#include "c2r/report/comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <vector>

#include "c2r/report/predictions.h"
#include "c2r/report/savings.h"
#include "c2r/report/table.h"

namespace c2r {
namespace {

using Row = std::vector<std::string>;

std::string percent(double share) {
  return fmt::format("{:.1f} %", 100 * share);
}

// "8", or "8-9" where layers have different numbers.
std::string slots_text(const ComparisonEntry& entry) {
  const auto [least, most] =
      std::ranges::minmax_element(entry.placements, {}, &Placement::slots_per_rank);
  if (least->slots_per_rank() == most->slots_per_rank()) {
    return std::to_string(least->slots_per_rank());
  }
  return fmt::format("{}-{}", least->slots_per_rank(), most->slots_per_rank());
}

// A number, or an array where layers have different ones.
Json slots_json(const ComparisonEntry& entry) {
  Json slots = Json::array();
  for (const Placement& placement : entry.placements) slots.push_back(placement.slots_per_rank());
  const bool are_equal = std::ranges::count(slots, slots[0]) == std::ssize(slots);
  return are_equal ? slots[0] : slots;
}

JudgedLayers judged_layers(const Comparison& comparison) {
  return {.max_imbalance = comparison.max_imbalance, .layer_indices = comparison.layer_indices};
}

Row header_row(const ComparisonEntry& first, const Cluster& cluster, const JudgedLayers& layers,
               bool has_format) {
  Row row = {"placement", "copies", "on the wire", "saved"};
  std::ranges::move(imbalance_headers(layers), std::back_inserter(row));
  row.insert(row.end(), {"fitted on", "slots"});
  if (cluster.num_nodes > 1) row.emplace_back("between nodes");
  if (has_format) row.emplace_back("kB/token and layer");
  if (!first.prediction.predicted_layer_time_s.empty()) row.emplace_back("predicted ms/layer");
  if (first.copies_bound) row.emplace_back("over bound");
  return row;
}

Row row_of(const Prediction& base, const ComparisonEntry& entry, const Cluster& cluster,
           const JudgedLayers& layers, const std::optional<CopyFormat>& format) {
  const Prediction& p = entry.prediction;
  Row row = {entry.name, copies_text(p, p.copies_per_token),
             copies_text(p, p.wire_copies_per_token),
             saved_text(link_cost_per_token(p, cluster), link_cost_per_token(base, cluster))};
  std::ranges::move(imbalance_cells(p, layers), std::back_inserter(row));
  row.push_back(entry.fitted_on + (entry.is_by_name ? ", by name" : "") +
                (entry.is_fitted ? " *" : ""));
  row.push_back(slots_text(entry));
  if (cluster.num_nodes > 1) {
    row.push_back(copies_text(p, p.inter_node_copies_per_token));
  }
  if (format) row.push_back(kilobytes_text(p, *format));
  if (!p.predicted_layer_time_s.empty()) {
    row.push_back(fmt::format("{:.4g}", 1e3 * mean_over_layers(p.predicted_layer_time_s)));
  }
  if (entry.copies_bound) {
    row.push_back(percent(mean_over_layers(p.copies_per_token) / *entry.copies_bound - 1));
  }
  return row;
}

}  // namespace

std::string comparison_table(const Comparison& comparison, const Cluster& cluster,
                             const std::optional<CopyFormat>& format) {
  const ComparisonEntry& first = comparison.entries[0];
  const JudgedLayers layers = judged_layers(comparison);
  std::vector<Row> rows = {header_row(first, cluster, layers, format.has_value())};
  bool has_fitted = false, replicates = false;
  for (const ComparisonEntry& entry : comparison.entries) {
    rows.push_back(row_of(comparison.base, entry, cluster, layers, format));
    has_fitted |= entry.is_fitted;
    replicates |= std::ranges::any_of(entry.placements, has_replicas);
  }
  const Prediction& p = first.prediction;
  std::string text = render_table(rows);
  text += fmt::format(
      "predicted on {} tokens of {}; copy mode {}, homes {}{}\n", p.num_tokens, p.trace,
      name_of(p.copy_mode), name_of(p.homes),
      replicates ? fmt::format(", replicas chosen by {}", name_of(p.replica_rule)) : "");
  text += p.has_copies()
              ? saved_line(cluster, comparison.base.placement)
              : "copies: unknown from loads, which do not say which experts a token chose\n";
  if (p.has_copies() && !p.is_exact) {
    text += "from pair counts, which are exact only up to top-2: the copies are lower bounds\n";
  }
  if (has_fitted) text += "* fitted on some of the counted tokens\n";
  if (first.copies_bound) {
    text +=
        "over bound: how far the copies are above a lower bound for every placement with these "
        "slots, balanced or not; more than some 10 % are mostly a weak bound's\n";
  }
  for (const ComparisonEntry& entry : comparison.entries) {
    if (entry.kind != "baseline") text += over_line(entry.prediction, layers);
  }
  for (const ComparisonEntry& entry : comparison.entries) {
    text += savings_line(entry.name, entry.saved);
  }
  for (const std::string& reason : comparison.left_out) text += "left out: " + reason + "\n";
  for (const std::string& note : comparison.notes) text += note + "\n";
  return text;
}

std::string comparison_layers_table(const Comparison& comparison) {
  std::vector<Prediction> predictions;
  for (const ComparisonEntry& entry : comparison.entries) predictions.push_back(entry.prediction);
  return layers_table(predictions, judged_layers(comparison));
}

Json comparison_json(const Comparison& comparison, const Cluster& cluster,
                     const std::optional<CopyFormat>& format) {
  Json placements = Json::array();
  for (const ComparisonEntry& entry : comparison.entries) {
    Json json = {{"placement", entry.name},
                 {"kind", entry.kind},
                 {"fitted_on", entry.fitted_on},
                 {"is_fitted", entry.is_fitted},
                 {"slots_per_rank", slots_json(entry)}};
    if (entry.copies_bound) json["copies_bound"] = *entry.copies_bound;
    Json numbers = predictions_json({&entry.prediction, 1}, format, judged_layers(comparison))[0];
    numbers.erase("step");
    numbers["jain_index"] = entry.jain_index;
    if (entry.saved) numbers["resampled"] = savings_json(*entry.saved);
    json.update(numbers);
    placements.push_back(std::move(json));
  }
  Json base = predictions_json({&comparison.base, 1}, format)[0];
  return {{"cluster", cluster_to_json(cluster)},
          {"base", std::move(base)},
          {"placements", std::move(placements)},
          {"left_out", comparison.left_out},
          {"notes", comparison.notes}};
}

}  // namespace c2r
