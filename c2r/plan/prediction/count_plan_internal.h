// Counts what a made plan does, beside what engines do without it, as far as the time allows.
#pragma once

#include "c2r/plan/make_plan.h"
#include "c2r/plan/plan_search_internal.h"
#include "c2r/plan/prediction/time_left.h"

namespace c2r::internal {

/// Adds predictions to the plan, and to `made` what is compared with them: moves, contiguous
/// experts and EPLB, scenarios, homes and the intervals of savings. A part for which no time is
/// left is named in MadePlan::left_out instead.
///
/// Cost: predict_waterfall(); once more predict_step() each for the plan that runs and EPLB; three
/// times for every scenario; compare_homes() and resample_savings().
void count_plan(const PlanTokens& tokens, const PlanRequest& request, TimeLeft& left,
                MadePlan& made);

}  // namespace c2r::internal
