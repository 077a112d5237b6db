// The result of `c2r analyze`, for programs and for people.
#pragma once

#include <string>
#include <vector>

#include "c2r/collaboration/collaboration.h"
#include "c2r/collaboration/fan_out.h"
#include "c2r/collaboration/metrics.h"
#include "c2r/core/ids.h"
#include "c2r/io/json.h"

namespace c2r {

struct Analysis {
  CollaborationStatistics statistics;
  ModelMetrics metrics;
  std::vector<FanOutOfSplit> fan_out;  // empty where it cannot be known
};

/// Every number of the analysis, with the names of collaboration/metrics.h; keys and order are
/// stable. Metrics that do not exist (an expert without collaborators) are null.
Json analysis_json(const Analysis& analysis);

/// One line a layer and a line of means.
std::string analysis_table(const Analysis& analysis);

/// The layer whose experts are most specialized; 0 if none has collaborators.
std::int64_t most_specialized_layer(const ModelMetrics& metrics);

/// Row e of the picture: how the choices made together with expert e split over the other experts,
/// rows and columns in order_by_collaboration(). With a line that says so, and the order itself.
/// @param max_cells rows and columns at most: of more experts, neighbours are averaged
std::string collaboration_heat_map(const CollaborationStatistics& statistics, std::int64_t layer,
                                   std::int64_t max_cells, bool has_color);

}  // namespace c2r
