// Writes predictions as a table and as JSON: the columns, and the notes below the table.
#include "c2r/report/predictions.h"

#include <algorithm>

#include "c2r/report/table.h"

namespace c2r {
namespace {

std::string tokens_lines(std::span<const Prediction> steps) {
  const bool has_constraint = steps.back().placement == "constraint";
  const Prediction& plan = steps[steps.size() - (has_constraint ? 2 : 1)];
  std::string text =
      fmt::format("predicted on {} tokens of {}; copy mode {}, homes {}{}\n", plan.num_tokens,
                  plan.trace, name_of(plan.copy_mode), name_of(plan.homes),
                  plan.placement == "replicas"
                      ? fmt::format(", replicas chosen by {}", name_of(plan.replica_rule))
                      : "");
  if (plan.copy_mode == CopyMode::kPerNode) {
    text += "on the wire: copies between nodes, and from there to other ranks of the node\n";
  }
  if (has_constraint) {
    text += fmt::format("constraint: on {} tokens of {}\n", steps.back().num_tokens,
                        steps.back().trace);
  }
  if (!plan.has_copies()) {
    return text +
           "copies: unknown from loads, which do not say which experts a token chose; give a "
           "trace, or counts of pairs\n" +
           (std::ranges::all_of(steps, &Prediction::is_exact)
                ? ""
                : "rank imbalance: replicas of an expert serve equal shares of its load\n");
  }
  if (!std::ranges::all_of(steps, &Prediction::is_exact)) {
    text +=
        "from pair counts, which are exact only up to top-2: the copies are lower bounds, and the "
        "savings upper bounds\n";
  }
  return text;
}

// One part of the time of each layer.
std::vector<double> column_of(const WaterfallStep& step, double PredictedLayerTime::*part) {
  std::vector<double> column;
  for (const PredictedLayerTime& time : step.times) column.push_back(time.*part);
  return column;
}

}  // namespace

std::string copies_text(const Prediction& prediction, std::span<const double> column) {
  return prediction.has_copies() ? fmt::format("{:.3f}", mean_over_layers(column)) : "-";
}

std::string kilobytes_text(const Prediction& prediction, const CopyFormat& format) {
  if (!prediction.has_copies()) return "-";
  return fmt::format("{:.2f}", wire_bytes_per_token(prediction, format) / 1e3);
}

std::string saved_text(double cost, double base) {
  return base > 0 ? fmt::format("{:.1f} %", 100 * (1 - cost / base)) : "-";
}

std::string saved_line(const Cluster& cluster, std::string_view base) {
  std::string text =
      fmt::format("saved: the share of the copies on the wire of {} that is saved", base);
  if (cluster.num_nodes > 1 && cluster.ranks_per_node > 1) {
    text += fmt::format(
        "; a copy between nodes counts as {:.3g} within a node, by the speed of the links",
        node_copy_weight(cluster));
  }
  return text + "\n";
}

std::string prediction_table(std::span<const Prediction> steps, const Cluster& cluster,
                             const std::optional<CopyFormat>& format) {
  std::vector<std::vector<std::string>> rows = {
      {"step", "copies/token", "on the wire", "between nodes", "saved", "rank imbalance"}};
  if (format) rows[0].push_back("kB/token and layer");
  const bool has_times = !steps[0].predicted_layer_time_s.empty();
  if (has_times) rows[0].push_back("predicted ms/layer");
  const double baseline = link_cost_per_token(steps[0], cluster);
  for (const Prediction& step : steps) {
    rows.push_back({step.placement, copies_text(step, step.copies_per_token),
                    copies_text(step, step.wire_copies_per_token),
                    copies_text(step, step.inter_node_copies_per_token),
                    saved_text(link_cost_per_token(step, cluster), baseline),
                    fmt::format("{:.3f}", mean_over_layers(step.imbalance))});
    if (format) rows.back().push_back(kilobytes_text(step, *format));
    if (has_times) {
      rows.back().push_back(
          fmt::format("{:.4g}", 1e3 * mean_over_layers(step.predicted_layer_time_s)));
    }
  }
  const std::string saved = steps[0].has_copies() ? saved_line(cluster, steps[0].placement) : "";
  return render_table(rows) + tokens_lines(steps) + saved;
}

std::string time_table(std::span<const WaterfallStep> steps, const LayerTimeOptions& options) {
  if (steps[0].times.empty()) return "";
  std::vector<std::vector<std::string>> rows = {
      {"step", "dispatch ms", "experts ms", "combine ms", "predicted ms/layer"}};
  for (const WaterfallStep& step : steps) {
    rows.push_back({step.prediction.placement});
    for (const auto part :
         {&PredictedLayerTime::predicted_dispatch_s, &PredictedLayerTime::predicted_compute_s,
          &PredictedLayerTime::predicted_combine_s, &PredictedLayerTime::predicted_total_s}) {
      rows.back().push_back(fmt::format("{:.4g}", 1e3 * mean_over_layers(column_of(step, part))));
    }
  }
  const std::int64_t batch = options.batch_tokens.value_or(steps[0].prediction.num_tokens);
  return render_table(rows) +
         fmt::format(
             "predicted for a batch of {} tokens on all ranks together; communication and experts "
             "{}\n",
             batch, name_of(options.overlap));
}

Json predictions_json(std::span<const Prediction> steps, const std::optional<CopyFormat>& format) {
  Json json = Json::array();
  for (const Prediction& step : steps) {
    json.push_back({{"step", step.placement},
                    {"trace", step.trace},
                    {"num_tokens", step.num_tokens},
                    {"copy_mode", name_of(step.copy_mode)},
                    {"replica_rule", name_of(step.replica_rule)},
                    {"homes", name_of(step.homes)},
                    {"is_exact", step.is_exact},
                    {"copies_per_token", step.copies_per_token},
                    {"wire_copies_per_token", step.wire_copies_per_token},
                    {"inter_node_copies_per_token", step.inter_node_copies_per_token},
                    {"imbalance", step.imbalance},
                    {"predicted_layer_time_s", step.predicted_layer_time_s}});
    if (!step.has_copies()) json.back()["copies"] = "unknown from loads";
    if (format && step.has_copies()) {
      json.back()["wire_bytes_per_token"] = wire_bytes_per_token(step, *format);
    }
  }
  return json;
}

Json volumes_json(std::span<const Volume> volumes, const std::optional<CopyFormat>& format) {
  Json layers = Json::array();
  for (const Volume& volume : volumes) {
    layers.push_back({{"copies", volume.copies_to_experts},
                      {"wire_copies", volume.wire_copies()},
                      {"inter_node_copies", volume.inter_node_copies},
                      {"sent", volume.sent},
                      {"received", volume.received},
                      {"choices", volume.choices},
                      {"jain_index", jain_index(volume.choices)}});
    if (!format) continue;
    layers.back()["dispatch_wire_bytes"] = dispatch_bytes(volume, *format).wire_bytes();
    layers.back()["combine_wire_bytes"] = combine_bytes(volume, *format).wire_bytes();
  }
  return {{"denominator", volumes[0].denominator}, {"layers", std::move(layers)}};
}

Json waterfall_json(std::span<const WaterfallStep> steps, const std::optional<CopyFormat>& format) {
  Json json = predictions_json(predictions_of(steps), format);
  for (std::size_t s = 0; s < steps.size(); ++s) {
    if (!steps[s].volumes.empty()) json[s]["counts"] = volumes_json(steps[s].volumes, format);
    if (steps[s].times.empty()) continue;
    json[s]["predicted_dispatch_s"] =
        column_of(steps[s], &PredictedLayerTime::predicted_dispatch_s);
    json[s]["predicted_experts_s"] = column_of(steps[s], &PredictedLayerTime::predicted_compute_s);
    json[s]["predicted_combine_s"] = column_of(steps[s], &PredictedLayerTime::predicted_combine_s);
  }
  return json;
}

std::vector<Prediction> predictions_of(std::span<const WaterfallStep> steps) {
  std::vector<Prediction> predictions;
  predictions.reserve(steps.size());
  for (const WaterfallStep& step : steps) predictions.push_back(step.prediction);
  return predictions;
}

}  // namespace c2r
