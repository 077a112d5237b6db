// Writes a comparison of homes as a table and as JSON.
#pragma once

#include <string>

#include "c2r/io/json.h"
#include "c2r/plan/homes/compare_homes.h"

namespace c2r {

/// @returns a table with one line for each way to choose homes, and what they are
std::string homes_table(const HomesComparison& comparison);

/// @returns {"num_tokens", "window", "rows": [{"homes", "wire_copies_per_token": of each layer,
///          "home_imbalance", "window_imbalance"}]}
Json homes_json(const HomesComparison& comparison);

}  // namespace c2r
