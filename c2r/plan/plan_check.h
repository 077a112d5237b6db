// Says whether a plan is worth following on the tokens that it reports: compares it with what
// engines do without a plan, and with its own bounds.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "c2r/placement/measure.h"
#include "c2r/plan/plan.h"

namespace c2r {

/// A bound on the imbalance of each layer, on the reported tokens.
struct ReportedBound {
  double max_imbalance = 1;
  double mean = 1, worst = 1;  // over layers
  std::int64_t num_over = 0;   // layers whose imbalance is above the bound

  bool operator==(const ReportedBound&) const = default;
};

/// How a plan does on the reported tokens.
struct PlanCheck {
  std::vector<Prediction> baselines;   // contiguous, eplb: of the tokens that the plan reports
  std::optional<std::string> better;   // the best of the baselines that are better than the plan
  std::optional<ReportedBound> bound;  // where the objective has one
};

/// Compares predictions of the same tokens. A baseline is better than the plan
///   if its predicted time is less, where times are predicted;
///   else, for Goal::kImbalance, if its imbalance is less and its copies are no more than those of
///   the plan or the bound on them;
///   else if it costs less, and its imbalance is no more than that of the plan or the bound on it.
/// All numbers are means over layers; copies are link_cost_per_token().
/// @param planned the last step of the plan's predictions
/// @param bound on the imbalance that the user asked for; less than what was fitted with
///        BoundOn::kUnseen
PlanCheck check_predictions(const Prediction& planned, std::vector<Prediction> baselines,
                            const Cluster& cluster, const PlacementObjective& objective,
                            std::optional<double> bound);

/// @returns one line of what is wrong and what to do, without a line feed; empty if nothing is
std::string warning_text(const PlanCheck& check, const Prediction& planned);

}  // namespace c2r
