// The options of `c2r plan`, and the request that they make.
#pragma once

#include <CLI/App.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "c2r/plan/homes/fit_homes.h"
#include "c2r/plan/make_plan.h"

namespace c2r::cli {

struct GoalOptions {
  std::string minimize = "copies", overlap = "added", bound_on = "fitted";
  double imbalance_weight = 0;
  std::optional<double> max_imbalance, max_copies;
  std::int64_t hidden = 0, intermediate = 0, batch_tokens = 0;
};

struct PlanOptions {
  std::vector<std::string> traces;  // at least one
  std::string scenarios;
  std::string cluster, output, fit = "all", method = std::string(kOptimizeMethod), from;
  std::optional<std::int64_t> max_moves;
  std::string homes = "uniform";
  std::int64_t home_tokens = kSignatureTokens;
  std::string home_by = "experts";
  std::optional<double> move_cost;
  std::int32_t top_t = 0, redundant_slots = 0, num_groups = 0;
  std::string engine, backend, phase = "prefill", hardware;
  GoalOptions goal;
  double effort = 1;
  std::optional<double> seconds;
  std::uint64_t seed = 0;
  bool proves = false;
  int num_threads = 0;
};

void add_plan_options(CLI::App& command, PlanOptions& options);

/// Adds an option `--effort`, checked.
/// @param help describes the option in this command
CLI::Option* add_effort(CLI::App& command, double& effort, const std::string& help);

/// Checks the options as far as this is possible without the trace.
/// @throws Error(kInvalidArgument), naming the first option that is for another method or goal
void check_plan_options(const CLI::App& command, const PlanOptions& options);

/// Warns on standard error if a time is to be minimized and the cluster has no device_flop_per_s;
/// the request minimizes copies then.
/// @returns the request of the options
PlanRequest plan_request_of(const PlanOptions& options, const Cluster& cluster);

}  // namespace c2r::cli
