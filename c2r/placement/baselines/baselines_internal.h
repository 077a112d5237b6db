// The baselines as functions. Each takes a problem that place_baseline() has checked.
#pragma once

#include <string>
#include <string_view>

#include "c2r/placement/baselines/baselines.h"
#include "c2r/placement/baselines/repair.h"

namespace c2r::internal {

struct Baseline {
  std::string_view name;
  // Empty if the baseline can place `problem`, else the reason.
  std::string (*why_not)(const BaselineProblem& problem);
  Placement (*place)(const BaselineProblem& problem);
  bool may_repeat = false;  // an expert on one rank
};

/// @returns the baselines in the order of baseline_names()
std::span<const Baseline> baselines();

/// @returns EPLB's own result, in which a rank may hold an expert twice. [ep_size, slots_per_rank]
Matrix<ExpertId> slots_of_eplb(const BaselineProblem& problem);

/// @returns what place_eplb() does, and in how many slots it differs from EPLB's result
RepairedPlacement repaired_eplb(const BaselineProblem& problem);

Placement place_eplb(const BaselineProblem& problem);
Placement place_balance(const BaselineProblem& problem);
Placement place_grace(const BaselineProblem& problem);
Placement place_exhaustive(const BaselineProblem& problem);

}  // namespace c2r::internal
