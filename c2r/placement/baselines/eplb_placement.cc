// Places with EPLB and repairs what it makes: a second replica of an expert on one rank.
#include <algorithm>

#include "c2r/placement/baselines/baselines_internal.h"
#include "c2r/placement/baselines/eplb.h"
#include "c2r/placement/baselines/repair.h"

namespace c2r {

Matrix<ExpertId> internal::slots_of_eplb(const BaselineProblem& problem) {
  std::vector<float> loads;  // as EPLB takes them
  for (std::int64_t e = 0; e < problem.num_experts(); ++e) {
    loads.push_back(static_cast<float>(problem.counts(e, e)));
  }
  const EplbResult result = rebalance_eplb(loads, {.num_slots = problem.num_slots(),
                                                   .num_groups = problem.num_groups,
                                                   .num_nodes = problem.cluster.num_nodes,
                                                   .num_ranks = problem.cluster.ep_size()});
  Matrix<ExpertId> slots(problem.cluster.ep_size(), problem.slots_per_rank);
  std::ranges::copy(result.expert_of_slot, slots.all().begin());
  return slots;
}

RepairedPlacement internal::repaired_eplb(const BaselineProblem& problem) {
  const auto tokens = expert_loads(problem.counts);
  const std::vector<double> loads(tokens.begin(), tokens.end());
  return repair_repeats(slots_of_eplb(problem), loads, problem.cluster);
}

Placement internal::place_eplb(const BaselineProblem& problem) {
  return repaired_eplb(problem).placement;
}

}  // namespace c2r
