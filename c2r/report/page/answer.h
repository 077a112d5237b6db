// The answer of a report in words: whether a plan should be loaded, and what to be careful about.
#pragma once

#include "c2r/io/json.h"

namespace c2r {

/// @param report the value that report_data() makes, without "answer"
/// @returns {"is_advised", "sentence", "cautions"}. A plan is not advised if, on the counted
///          tokens, it is predicted to take no less time than contiguous experts, or, where no
///          times are predicted, to send no fewer copies with no better balance; or if it sends
///          more copies in any tenth of the trace.
Json answer_json(const Json& report);

}  // namespace c2r
