// Places with EPLB and repairs what it makes: a second replica of an expert on one rank.
#include <algorithm>

#include "c2r/placement/baselines/baselines_internal.h"
#include "c2r/placement/baselines/eplb.h"
#include "c2r/placement/baselines/repair.h"

namespace c2r {

RepairedPlacement internal::repaired_eplb(const BaselineProblem& problem) {
  std::vector<double> loads;
  std::vector<float> rounded;  // as EPLB takes them
  for (std::int64_t e = 0; e < problem.num_experts(); ++e) {
    loads.push_back(static_cast<double>(problem.counts(e, e)));
    rounded.push_back(static_cast<float>(problem.counts(e, e)));
  }
  const EplbResult result = rebalance_eplb(rounded, {.num_slots = problem.num_slots(),
                                                     .num_groups = problem.num_groups,
                                                     .num_nodes = problem.cluster.num_nodes,
                                                     .num_ranks = problem.cluster.ep_size()});
  Matrix<ExpertId> slots(problem.cluster.ep_size(), problem.slots_per_rank);
  std::ranges::copy(result.expert_of_slot, slots.all().begin());
  return repair_repeats(slots, loads, problem.cluster);
}

Placement internal::place_eplb(const BaselineProblem& problem) {
  return repaired_eplb(problem).placement;
}

}  // namespace c2r
