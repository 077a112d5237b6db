// Writes predictions as a table and as JSON: the columns, and the notes below the table.
#include "c2r/report/predictions.h"

#include <algorithm>
#include <iterator>

#include "c2r/core/at.h"
#include "c2r/report/table.h"

namespace c2r {
namespace {

// @returns the last step that counts the same tokens as the first one; steps of tokens that were
//          routed by another rule may follow
std::size_t last_step_of_plan(std::span<const Prediction> steps) {
  for (std::size_t at = steps.size(); at > 0; --at) {
    const std::string& name = steps[at - 1].placement;
    if (name == "placement" || name == "replicas") return at - 1;
  }
  return steps.size() - 1;
}

std::string tokens_lines(std::span<const Prediction> steps) {
  const std::size_t of_plan = last_step_of_plan(steps);
  const Prediction& plan = steps[of_plan];
  std::string text =
      fmt::format("predicted on {} tokens of {}; copy mode {}, homes {}{}\n", plan.num_tokens,
                  plan.trace, name_of(plan.copy_mode), name_of(plan.homes),
                  plan.placement == "replicas"
                      ? fmt::format(", replicas chosen by {}", name_of(plan.replica_rule))
                      : "");
  if (plan.copy_mode == CopyMode::kPerNode) {
    text += "on the wire: copies between nodes, and from there to other ranks of the node\n";
  }
  for (const Prediction& step : steps.subspan(of_plan + 1)) {
    text +=
        step.placement == "homes"
            ? "homes: the plan's signature chooses the rank of a sequence: by token ids if it has "
              "their weights, else by its first tokens, which run on the ranks in turn\n"
            : fmt::format("{}: on {} tokens of {}\n", step.placement, step.num_tokens, step.trace);
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

JudgedLayers judged_layers_of(const Plan& plan) {
  return {.max_imbalance = max_imbalance_of(plan), .layer_indices = layer_indices_of(plan)};
}

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

std::vector<std::string> imbalance_headers(const JudgedLayers& layers) {
  std::vector<std::string> headers = {"rank imbalance", "worst"};
  if (layers.max_imbalance) headers.emplace_back("over");
  return headers;
}

std::vector<std::string> imbalance_cells(const Prediction& prediction, const JudgedLayers& layers) {
  const LayerImbalance met = layer_imbalance(prediction.imbalance, layers.max_imbalance);
  std::vector<std::string> cells = {fmt::format("{:.3f}", met.mean),
                                    fmt::format("{:.3f}", met.worst)};
  if (layers.max_imbalance) {
    cells.push_back(fmt::format("{}/{}", met.over.size(), prediction.imbalance.size()));
  }
  return cells;
}

std::string over_line(const Prediction& prediction, const JudgedLayers& layers) {
  const LayerImbalance met = layer_imbalance(prediction.imbalance, layers.max_imbalance);
  if (met.over.empty()) return "";
  return fmt::format("over in {}: {} of {} layers are above the bound of {:.4g} on imbalance: {}\n",
                     prediction.placement, met.over.size(), prediction.imbalance.size(),
                     *layers.max_imbalance, layers_text(met.over, layers.layer_indices));
}

std::string prediction_table(std::span<const Prediction> steps, const Cluster& cluster,
                             const std::optional<CopyFormat>& format, const JudgedLayers& layers) {
  std::vector<std::vector<std::string>> rows = {{"step", "copies/token", "on the wire", "saved"}};
  std::ranges::move(imbalance_headers(layers), std::back_inserter(rows[0]));
  if (cluster.num_nodes > 1) rows[0].push_back("between nodes");
  if (format) rows[0].push_back("kB/token and layer");
  const bool has_times = !steps[0].predicted_layer_time_s.empty();
  if (has_times) rows[0].push_back("predicted ms/layer");
  const double baseline = link_cost_per_token(steps[0], cluster);
  for (const Prediction& step : steps) {
    std::vector<std::string>& row = rows.emplace_back();
    row = {step.placement, copies_text(step, step.copies_per_token),
           copies_text(step, step.wire_copies_per_token),
           saved_text(link_cost_per_token(step, cluster), baseline)};
    std::ranges::move(imbalance_cells(step, layers), std::back_inserter(row));
    if (cluster.num_nodes > 1) row.push_back(copies_text(step, step.inter_node_copies_per_token));
    if (format) row.push_back(kilobytes_text(step, *format));
    if (has_times) {
      row.push_back(fmt::format("{:.4g}", 1e3 * mean_over_layers(step.predicted_layer_time_s)));
    }
  }
  const std::string saved = steps[0].has_copies() ? saved_line(cluster, steps[0].placement) : "";
  return render_table(rows) + tokens_lines(steps) + saved + over_line(steps.back(), layers);
}

std::string layers_table(std::span<const Prediction> predictions, const JudgedLayers& layers) {
  std::vector<std::vector<std::string>> rows = {{"layer"}};
  for (const Prediction& prediction : predictions) rows[0].push_back(prediction.placement);
  for (std::size_t layer = 0; layer < layers.layer_indices.size(); ++layer) {
    std::vector<std::string>& row = rows.emplace_back();
    row.push_back(std::to_string(layers.layer_indices[layer]));
    for (const Prediction& prediction : predictions) {
      const double met = prediction.imbalance[layer];
      const bool is_over = !layer_imbalance({&met, 1}, layers.max_imbalance).over.empty();
      row.push_back(fmt::format(
          "{} @ {:.3f}{}",
          prediction.has_copies() ? fmt::format("{:.3f}", prediction.copies_per_token[layer]) : "-",
          met, is_over ? " *" : "  "));
    }
  }
  return render_table(rows) +
         (layers.max_imbalance
              ? fmt::format("copies/token @ rank imbalance; *: above the bound of {:.4g}\n",
                            *layers.max_imbalance)
              : "copies/token @ rank imbalance\n");
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

Json predictions_json(std::span<const Prediction> steps, const std::optional<CopyFormat>& format,
                      const JudgedLayers& layers) {
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
    const LayerImbalance met = layer_imbalance(step.imbalance, layers.max_imbalance);
    json.back()["mean_imbalance"] = met.mean;
    json.back()["worst_imbalance"] = met.worst;
    if (layers.max_imbalance) {
      json.back()["max_imbalance"] = *layers.max_imbalance;
      Json over = Json::array();
      for (const std::int64_t layer : met.over) over.push_back(at(layers.layer_indices, layer));
      json.back()["layers_over"] = std::move(over);
    }
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

Json waterfall_json(std::span<const WaterfallStep> steps, const std::optional<CopyFormat>& format,
                    const JudgedLayers& layers) {
  Json json = predictions_json(predictions_of(steps), format, layers);
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
