// The figures of what was given to a report beside the plan and the trace.
#pragma once

#include "c2r/io/json.h"
#include "c2r/report/page/figures.h"

namespace c2r {

/// Copies on the wire, and perplexity where models were scored, for each T of the constraint.
/// @param report with "constraint"
Figure constraint_figure(const Json& report);

/// The time of a layer in dispatch, experts and combine, as measured and, where times are
/// predicted, as predicted.
/// @param report with "measured"
Figure measured_figure(const Json& report);

}  // namespace c2r
