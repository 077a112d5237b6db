// Writes an Analysis as JSON, as a table and as heat maps.
#include "c2r/report/analysis.h"

#include <algorithm>
#include <numeric>

#include "c2r/collaboration/ordering.h"
#include "c2r/core/error.h"
#include "c2r/core/shown.h"
#include "c2r/report/table.h"
#include "c2r/report/wrap.h"

namespace c2r {
namespace {

Json collaborators_json(const std::optional<CollaboratorMetrics>& m) {
  if (!m) return nullptr;
  return {{"effective_collaborators", m->effective_collaborators},
          {"normalized_entropy", m->normalized_entropy},
          {"specialization", m->specialization},
          {"collaborators_90", m->collaborators_90}};
}

Json layer_json(const Analysis& analysis, std::size_t layer) {
  const LayerMetrics& m = analysis.metrics.layers[layer];
  Json json = {{"layer_index", analysis.statistics.header.layer_indices[layer]},
               {"num_tokens", analysis.statistics.num_tokens[layer]},
               {"num_choices", m.num_choices},
               {"expert_imbalance", m.imbalance},
               {"busiest_share", m.busiest_share},
               {"busiest_expert", m.busiest_expert},
               {"num_unused_experts", m.num_unused_experts},
               {"collaborators", collaborators_json(m.collaborators)}};
  json["fan_out"] = Json::object();
  for (const FanOutOfSplit& split : analysis.fan_out) {
    json["fan_out"][std::to_string(split.ep_size)] = split.per_layer[layer];
  }
  json["experts"] = Json::array();
  for (const ExpertMetrics& expert : m.experts) {
    json["experts"].push_back(
        {{"load", expert.load}, {"collaborators", collaborators_json(expert.collaborators)}});
  }
  return json;
}

// The cells that the row of a layer and the row of means have in common.
std::vector<std::string> cells(const std::string& name, double imbalance, double busiest_share,
                               const std::optional<CollaboratorMetrics>& m) {
  std::vector<std::string> row = {name, fmt::format("{:.2f}", imbalance),
                                  fmt::format("{:.1f} %", 100 * busiest_share)};
  if (!m) {
    row.insert(row.end(), 3, "-");
  } else {
    row.push_back(fmt::format("{:.1f}", m->effective_collaborators));
    row.push_back(fmt::format("{:.1f}", m->collaborators_90));
    row.push_back(fmt::format("{:.3f}", m->specialization));
  }
  return row;
}

// What the columns mean.
std::string legend(const Analysis& analysis) {
  std::string text = fmt::format(
      "expert imbalance: the load of the busiest expert over the mean; a plan has a rank "
      "imbalance\n"
      "busiest: the share of all choices that fall on one expert\n"
      "collaborators: with how many of the {} other experts an expert effectively works; 90 %: how "
      "many make up 90 % of its pairs\n"
      "specialization: 0 if an expert works equally with all others, 1 if only with one; 0.19 in "
      "gpt-oss-20b, "
      "0.38 in LLaMA-MoE-3.5B",
      analysis.statistics.header.num_experts - 1);
  if (!analysis.fan_out.empty()) {
    text +=
        "\nover N: the fan-out, the ranks that a token must reach if experts are split in order "
        "over N ranks";
  }
  return text;
}

}  // namespace

Json analysis_json(const Analysis& analysis) {
  const TraceHeader& header = analysis.statistics.header;
  const ModelMetrics& m = analysis.metrics;
  Json json = {{"model", header.model},
               {"num_experts", header.num_experts},
               {"top_k", header.top_k},
               {"num_layers", header.num_layers()},
               {"mean_expert_imbalance", m.mean_imbalance},
               {"max_expert_imbalance", m.max_imbalance},
               {"mean_busiest_share", m.mean_busiest_share},
               {"collaborators", collaborators_json(m.collaborators)}};
  json["fan_out"] = Json::object();
  for (const FanOutOfSplit& split : analysis.fan_out) {
    json["fan_out"][std::to_string(split.ep_size)] = split.mean;
  }
  json["layers"] = Json::array();
  for (std::size_t layer = 0; layer < m.layers.size(); ++layer) {
    json["layers"].push_back(layer_json(analysis, layer));
  }
  return json;
}

std::string analysis_table(const Analysis& analysis) {
  const ModelMetrics& m = analysis.metrics;
  const TraceHeader& header = analysis.statistics.header;
  std::vector<std::vector<std::string>> rows = {
      {"layer", "expert imbalance", "busiest", "collaborators", "90 %", "specialization"}};
  for (const FanOutOfSplit& split : analysis.fan_out) {
    rows[0].push_back(fmt::format("over {}", split.ep_size));
  }
  for (std::size_t layer = 0; layer < m.layers.size(); ++layer) {
    const LayerMetrics& l = m.layers[layer];
    rows.push_back(cells(std::to_string(header.layer_indices[layer]), l.imbalance, l.busiest_share,
                         l.collaborators));
    for (const FanOutOfSplit& split : analysis.fan_out) {
      rows.back().push_back(fmt::format("{:.3f}", split.per_layer[layer]));
    }
  }
  rows.push_back(cells("mean", m.mean_imbalance, m.mean_busiest_share, m.collaborators));
  for (const FanOutOfSplit& split : analysis.fan_out) {
    rows.back().push_back(fmt::format("{:.3f}", split.mean));
  }
  return render_table(rows);
}

std::string analysis_text(const Analysis& analysis, const HeatMaps& heat_maps) {
  const TraceHeader& header = analysis.statistics.header;
  std::string text = fmt::format("{}: {} MoE layers, {} experts, top-{}, {} tokens\n\n",
                                 header.model.empty() ? "unnamed model" : shown(header.model),
                                 header.num_layers(), header.num_experts, header.top_k,
                                 std::ranges::max(analysis.statistics.num_tokens));
  text += analysis_table(analysis);
  for (const std::int64_t layer : heat_maps.layers) {
    text += '\n';
    text +=
        collaboration_heat_map(analysis.statistics, layer, heat_maps.max_cells, heat_maps.style);
  }
  text += '\n' + wrap_text(legend(analysis)) + '\n';
  return text;
}

std::vector<std::int64_t> heat_map_layers(const Analysis& analysis, std::string_view which,
                                          std::string_view option) {
  const bool has_pairs = analysis.statistics.has_pairs;
  if (which == "none" || (which == "best" && !has_pairs)) return {};
  if (which == "best") return {most_specialized_layer(analysis.metrics)};
  const auto& indices = analysis.statistics.header.layer_indices;
  std::vector<std::int64_t> layers;
  for (std::size_t layer = 0; layer < indices.size(); ++layer) {
    if (which != "all" && which != std::to_string(indices[layer])) continue;
    layers.push_back(static_cast<std::int64_t>(layer));
  }
  C2R_REQUIRE(!layers.empty(), kInvalidArgument,
              "{} takes best, all, none or the index of an MoE layer in [{}, {}], not '{}'", option,
              indices.front(), indices.back(), which);
  C2R_REQUIRE(has_pairs, kInvalidArgument,
              "{} {} needs a trace or pair counts, but these are loads only", option, which);
  return layers;
}

std::int64_t most_specialized_layer(const ModelMetrics& metrics) {
  const auto specialization = [](const LayerMetrics& layer) {
    return layer.collaborators ? layer.collaborators->specialization : -1.0;
  };
  return std::ranges::max_element(metrics.layers, {}, specialization) - metrics.layers.begin();
}

std::string collaboration_heat_map(const CollaborationStatistics& statistics, std::int64_t layer,
                                   std::int64_t max_cells, HeatMapStyle style) {
  const CollaborationMatrix& counts = statistics.coactivation[static_cast<std::size_t>(layer)];
  const auto order = order_by_collaboration(counts);
  Matrix<double> shares(counts.rows(), counts.cols());
  for (std::int64_t r = 0; r < counts.rows(); ++r) {
    const auto a = static_cast<std::int64_t>(order[static_cast<std::size_t>(r)]);
    const auto row = counts.row(a);
    const auto total = std::reduce(row.begin(), row.end()) - counts(a, a);
    for (std::int64_t c = 0; c < counts.cols(); ++c) {
      const auto b = static_cast<std::int64_t>(order[static_cast<std::size_t>(c)]);
      if (a == b || total == 0) continue;
      shares(r, c) = static_cast<double>(counts(a, b)) / static_cast<double>(total);
    }
  }
  const Matrix<double> drawn = average_cells(shares, max_cells);
  const double largest = std::ranges::max(drawn.all());
  if (largest == 0) return "no two experts were chosen together\n";
  const bool is_averaged = drawn.rows() < shares.rows();
  std::string text = wrap_text(fmt::format(
      "layer {}: a cell is the {} in the pairs of the row's {}; solid = {:.{}f} %\n",
      statistics.header.layer_indices[static_cast<std::size_t>(layer)],
      is_averaged ? "mean share of one of the column's experts" : "share of the column's expert",
      is_averaged ? "experts" : "expert", 100 * largest, is_averaged ? 1 : 0));
  text += render_heat_map(drawn, largest, style);
  std::string experts = "experts from left to right:";
  for (const ExpertId e : order) experts += fmt::format(" {}", index(e));
  return text + wrap_text(experts) + "\n";
}

}  // namespace c2r
