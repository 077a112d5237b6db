// What the loss of a rank takes with it under a plan.
#pragma once

#include <cstdint>
#include <vector>

#include "c2r/plan/plan.h"

namespace c2r {

/// The experts that are on one rank only, and so are lost with it.
struct RankLoss {
  std::int64_t num_orphans = 0;  // such experts, summed over layers
  std::int32_t num_layers = 0;   // that have such experts

  bool operator==(const RankLoss&) const = default;
};

/// @returns what is lost with each rank of the plan's cluster. [ep_size]
std::vector<RankLoss> losses_of_ranks(const Plan& plan);

}  // namespace c2r
