// What `c2r plan` minimizes within which bounds: its options, and how the result is said.
#pragma once

#include <CLI/App.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "c2r/placement/optimize.h"
#include "c2r/plan/plan.h"

namespace c2r::cli {

struct GoalOptions {
  std::string minimize = "copies", overlap = "added", bound_on = "fitted";
  double imbalance_weight = 0;
  std::optional<double> max_imbalance, max_copies;
  std::int64_t hidden = 0, intermediate = 0;
};

void add_goal_options(CLI::App& command, GoalOptions& options);

/// Says on standard error if `cluster` lacks what a predicted time needs; copies are minimized
/// then.
/// @throws Error(kInvalidArgument) if options contradict each other
PlacementObjective objective_of(const GoalOptions& options, const Cluster& cluster);

/// The goal and its bounds, by the names of the options, for the plan's provenance. Of a bound
/// on other tokens also the lower one that was fitted with.
std::vector<PlanOption> resolved_goal(const GoalOptions& options,
                                      const PlacementObjective& objective);

/// What was reached, how far from the best possible it can be, and which bounds are missed: lines.
std::string reached_text(const PlacementObjective& objective,
                         const std::vector<OptimizedPlacement>& layers);

}  // namespace c2r::cli
