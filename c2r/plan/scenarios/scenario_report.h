// Predicts what a plan does in each scenario of its fitted tokens, beside contiguous experts and
// EPLB.
#pragma once

#include <span>
#include <vector>

#include "c2r/core/progress.h"
#include "c2r/plan/prediction/predict.h"
#include "c2r/plan/scenarios/scenarios.h"

namespace c2r {

/// @param tokens a part of a trace
/// @param planned [num_layers]
/// @param eplb [num_layers], or empty where EPLB cannot place the experts
/// @returns [num_scenarios]
/// @throws as predict_step()
///
/// Cost: two or three times predict_step() for the tokens of each scenario; with replicas, each
/// serves the trace's other tokens before.
std::vector<ScenarioReport> predict_scenarios(const RoutedTokens& tokens,
                                              std::span<const Scenario> scenarios,
                                              std::span<const Placement> planned,
                                              std::span<const Placement> eplb,
                                              const PredictRequest& request, int num_threads,
                                              Progress& progress);

}  // namespace c2r
