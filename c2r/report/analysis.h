// Writes the result of `c2r analyze` as JSON for programs, and as tables and heat maps for people.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/collaboration/collaboration.h"
#include "c2r/collaboration/metrics.h"
#include "c2r/core/ids.h"
#include "c2r/io/json.h"
#include "c2r/placement/cost/fan_out.h"
#include "c2r/report/heat_map.h"

namespace c2r {

struct Analysis {
  CollaborationStatistics statistics;
  ModelMetrics metrics;
  std::vector<FanOutOfSplit> fan_out;  // empty if statistics do not determine it
};

/// @returns all numbers of the analysis, under the names of collaboration/metrics.h. The keys and
///          their order are stable. A metric that is undefined, as for an expert without
///          collaborators, is null.
Json analysis_json(const Analysis& analysis);

/// @returns a table with one line for each layer and a line of means
std::string analysis_table(const Analysis& analysis);

/// The heat maps of an analysis.
struct HeatMaps {
  std::vector<std::int64_t> layers;  // to draw, as heat_map_layers()
  std::int64_t max_cells = 40;       // as in collaboration_heat_map(); 40 fill a line
  HeatMapStyle style = HeatMapStyle::kBlocks;
};

/// @returns the analysis for people: a line that names the model, the table, the heat maps, and
///          what the columns mean
std::string analysis_text(const Analysis& analysis, const HeatMaps& heat_maps);

/// @param which "best" (the most specialized layer), "all", "none", or the model's own index of an
///        MoE layer
/// @param option what the caller calls `which`, for messages
/// @returns the layers to draw a heat map of, in their order; for "best" none if the statistics
///          hold loads only
/// @throws Error(kInvalidArgument) if there is no such layer, or if layers are asked for and the
///         statistics hold loads only
std::vector<std::int64_t> heat_map_layers(const Analysis& analysis, std::string_view which,
                                          std::string_view option);

/// @returns the layer whose experts are most specialized; 0 if no expert has collaborators
std::int64_t most_specialized_layer(const ModelMetrics& metrics);

/// Draws a heat map with a legend and the order of the experts. Row e shows the shares of the other
/// experts in the choices made together with expert e. Rows and columns are in the order of
/// order_by_collaboration().
/// @param max_cells the largest number of rows and columns; of more experts, neighbours are
///        averaged
std::string collaboration_heat_map(const CollaborationStatistics& statistics, std::int64_t layer,
                                   std::int64_t max_cells, HeatMapStyle style);

}  // namespace c2r
