// Explains the answer of a report to a reader who knows MoE models, but not c2r.
#pragma once

#include <string>

#include "c2r/io/json.h"

namespace c2r {

/// @param report the value that report_data() makes, with or without its answer, here and below
/// @returns why a token needs as many copies as it does: on how many ranks or nodes its experts are
///          before and under the plan; empty if the engine's exchange takes no time that a
///          placement could save
std::string why_text(const Json& report);

/// @returns which tokens were counted, how the saving varies over resampled sequences and over the
///          trace, and that times are not measured
std::string how_sure_text(const Json& report);

}  // namespace c2r
