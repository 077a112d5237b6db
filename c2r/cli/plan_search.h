// The search of `c2r plan`: its options, the bound it fits with, and how it ended.
#pragma once

#include <CLI/App.hpp>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "c2r/cli/plan_goal.h"
#include "c2r/placement/cost/reach.h"
#include "c2r/placement/optimize.h"
#include "c2r/plan/plan.h"
#include "c2r/trace/sequence_split.h"
#include "c2r/trace/trace.h"

namespace c2r::cli {

inline constexpr ReplicaRule kPlannedRule = ReplicaRule::kFewestRanks;  // the optimizer assumes it

struct SearchOptions {
  GoalOptions goal;
  std::int32_t redundant_slots = 0, num_groups = 0;
  double effort = 1;
  std::optional<double> seconds;
  std::uint64_t seed = 0;
  bool proves = false;
  int num_threads = 0;
};

/// Adds the goal's options and those that say how long is searched, which only the optimizer asks.
void add_search_options(CLI::App& command, SearchOptions& options);

/// Adds an option `--effort`, checked. @param help what it does in this command
CLI::Option* add_effort(CLI::App& command, double& effort, const std::string& help);

/// @throws Error(kInvalidArgument), naming the first option that was given and only the optimizer
///         asks, though `method` is to place
void refuse_search_options(const CLI::App& command, const std::string& method);

struct SearchResult {
  PlacementObjective objective;  // with the bound on imbalance that was fitted with
  std::vector<OptimizedPlacement> layers;
  std::string ended_by;  // as in Provenance
};

/// Places every layer. Ctrl-C ends the search, not the program.
SearchResult search_placements(const SearchOptions& options, const Trace& trace,
                               std::span<const TokenRange> ranges, const Cluster& cluster);

/// What was minimized within which bounds and how long, as it is kept in the plan.
std::vector<PlanOption> resolved_options(const SearchOptions& options,
                                         const PlacementObjective& objective);

}  // namespace c2r::cli
