// Writes how sure a saving is: its intervals over resampled sequences, as a line and as JSON.
#pragma once

#include <optional>
#include <string>

#include "c2r/io/json.h"
#include "c2r/plan/prediction/resample.h"

namespace c2r {

/// @returns "24.2 to 26.0 %", the signs included; one number if both ends round to it
std::string interval_text(const Interval& interval);

/// @param name of the placement, for the beginning of the line
/// @returns a line such as "placement saves 24.2 to 26.0 % of the copies and 8.1 to 15.2 % of the
///          time (95 % of 200 resamples of 312 sequences)", with a warning of few sequences; empty
///          without intervals
std::string savings_line(const std::string& name, const std::optional<SavedIntervals>& saved);

/// @returns {"num_sequences", "num_blocks", "num_resamples", "saved_copies": [least, most],
///          "saved_time": [least, most] or null}
Json savings_json(const SavedIntervals& saved);

}  // namespace c2r
