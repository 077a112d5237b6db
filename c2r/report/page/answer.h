// The answer of a report in words: whether a plan should be loaded, and what to be careful about.
#pragma once

#include <cstdint>

#include "c2r/io/json.h"

namespace c2r {

/// Below so many sequences no plan is advised.
inline constexpr std::int64_t kTooFewSequences = 50;

/// Decides on the counted tokens. There is a reason against the plan if
///   the engine's exchange takes no time that a placement could save (its kernel has no copy mode);
///   the plan is predicted to take no less time than before or, where no times are predicted, it
///   sends more copies, or as many and is not better balanced;
///   it sends more copies, or takes more time, than before in the last tenth of the trace or in
///   three tenths;
///   no times are predicted, and the mean imbalance is more than 5 % above both that of before and
///   the plan's bound;
///   the interval of the saving over resampled sequences reaches 0;
///   fewer than kTooFewSequences sequences were counted.
///
/// @param report the value that report_data() makes, without "answer"
/// @returns {"is_advised", "sentence", "why", "how_sure", "reasons", "cautions"}; a plan is advised
///          if there are no reasons against it
Json answer_json(const Json& report);

}  // namespace c2r
