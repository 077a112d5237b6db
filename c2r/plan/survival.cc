// Counts the experts of each layer that only one rank holds.
#include "c2r/plan/survival.h"

#include "c2r/core/at.h"

namespace c2r {

std::vector<RankLoss> losses_of_ranks(const Plan& plan) {
  const auto ep_size = static_cast<std::size_t>(plan.cluster.ep_size());
  std::vector<RankLoss> losses(ep_size);
  for (const PlanLayer& layer : plan.layers) {
    std::vector<std::int64_t> num_orphans(ep_size);
    for (const auto& hosts : ranks_of_experts(layer.placement)) {
      if (hosts.size() == 1) ++at(num_orphans, hosts[0]);
    }
    for (std::size_t rank = 0; rank < ep_size; ++rank) {
      losses[rank].num_orphans += num_orphans[rank];
      losses[rank].num_layers += num_orphans[rank] > 0 ? 1 : 0;
    }
  }
  return losses;
}

}  // namespace c2r
