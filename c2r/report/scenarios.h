// The table of what a plan does in each scenario.
#pragma once

#include <span>
#include <string>

#include "c2r/plan/scenarios/scenarios.h"

namespace c2r {

/// @returns a row for each scenario with contiguous experts, EPLB and the plan beside each other:
///          predicted ms of a layer, or copies @ imbalance without times; and a line that names the
///          scenarios in which a baseline has less time, or less of both. Empty without scenarios
std::string scenarios_table(std::span<const ScenarioReport> scenarios);

}  // namespace c2r
