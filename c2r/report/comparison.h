// Writes a comparison of placements as a table and as JSON.
#pragma once

#include <optional>
#include <string>

#include "c2r/io/json.h"
#include "c2r/placement/cost/volume.h"
#include "c2r/plan/compare.h"

namespace c2r {

/// @returns a table with one line for each entry, the meaning of the columns, the layers of plans
///          and of the front over the bound, the baselines that were left out, and the notes. With
///          a format it has the bytes of a token, dispatch and combine together
std::string comparison_table(const Comparison& comparison, const Cluster& cluster,
                             const std::optional<CopyFormat>& format);

/// @returns a row for each layer with the copies and the imbalance of every placement
std::string comparison_layers_table(const Comparison& comparison);

/// @returns the keys "cluster", "base", "placements", "left_out" and "notes"
Json comparison_json(const Comparison& comparison, const Cluster& cluster,
                     const std::optional<CopyFormat>& format);

}  // namespace c2r
