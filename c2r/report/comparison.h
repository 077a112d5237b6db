// A comparison of placements as a table and as JSON.
#pragma once

#include <optional>
#include <string>

#include "c2r/io/json.h"
#include "c2r/placement/cost/volume.h"
#include "c2r/plan/compare.h"

namespace c2r {

/// One line an entry, what the columns mean, and what was left out. With a format also the bytes of
/// a token, dispatch and combine together.
std::string comparison_table(const Comparison& comparison, const Cluster& cluster,
                             const std::optional<CopyFormat>& format);

/// The keys "cluster", "placements" and "left_out".
Json comparison_json(const Comparison& comparison, const Cluster& cluster,
                     const std::optional<CopyFormat>& format);

}  // namespace c2r
