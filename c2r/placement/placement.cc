// The invariants of placements, and the two ways to look at one: by rank and by expert.
#include "c2r/placement/placement.h"

#include <algorithm>

#include "c2r/core/at.h"
#include "c2r/core/error.h"
#include "c2r/routing/routing.h"

namespace c2r {

void check_slots(const Placement& placement) {
  C2R_REQUIRE(0 <= placement.num_experts && placement.num_experts <= kMaxExperts, kInvalidArgument,
              "a placement is of {} experts, but must be of 0 to {}", placement.num_experts,
              kMaxExperts);
  std::vector<std::int32_t> replicas(static_cast<std::size_t>(placement.num_experts), 0);
  for (std::int64_t r = 0; r < placement.slots.rows(); ++r) {
    const auto row = placement.slots.row(r);
    for (auto slot = row.begin(); slot != row.end(); ++slot) {
      if (*slot == kNoExpert) continue;
      const auto expert = static_cast<std::int32_t>(*slot);
      C2R_REQUIRE(0 <= expert && expert < placement.num_experts, kInvalidArgument,
                  "rank {} holds expert {}, but the layer has experts 0 to {}", r, expert,
                  placement.num_experts - 1);
      C2R_REQUIRE(std::find(row.begin(), slot, *slot) == slot, kInvalidArgument,
                  "rank {} holds expert {} twice", r, expert);
      ++at(replicas, *slot);
    }
  }
  const auto missing = std::ranges::find(replicas, 0);
  C2R_REQUIRE(missing == replicas.end(), kInvalidArgument, "expert {} is on no rank",
              missing - replicas.begin());
}

void check_placement(const Placement& placement) {
  const auto slots = placement.slots.all();
  const auto empty = std::ranges::find(slots, kNoExpert) - slots.begin();
  C2R_REQUIRE(empty == std::ssize(slots), kInvalidArgument, "rank {} has an empty slot {}",
              empty / placement.slots_per_rank(), empty % placement.slots_per_rank());
  check_slots(placement);
}

bool has_replicas(const Placement& placement) {
  const auto slots = placement.slots.all();
  return std::ssize(slots) - std::ranges::count(slots, kNoExpert) > placement.num_experts;
}

std::vector<std::vector<RankId>> ranks_of_experts(const Placement& placement) {
  std::vector<std::vector<RankId>> ranks(static_cast<std::size_t>(placement.num_experts));
  for (std::int32_t r = 0; r < placement.ep_size(); ++r) {
    for (const ExpertId e : placement.slots.row(r)) {
      if (e != kNoExpert) at(ranks, e).push_back(RankId{r});
    }
  }
  return ranks;
}

std::vector<RankId> rank_of(const Placement& placement) {
  std::vector<RankId> ranks;
  for (const auto& hosts : ranks_of_experts(placement)) {
    C2R_REQUIRE(hosts.size() == 1, kInvalidArgument,
                "expert {} is on {} ranks, but only placements without replicas have one rank an "
                "expert",
                ranks.size(), hosts.size());
    ranks.push_back(hosts[0]);
  }
  return ranks;
}

Placement placement_of_ranks(std::int32_t num_experts,
                             std::span<const std::vector<std::int32_t>> experts_of_rank) {
  const std::int64_t num_slots = experts_of_rank.empty() ? 0 : std::ssize(experts_of_rank[0]);
  Placement placement{.num_experts = num_experts,
                      .slots = {std::ssize(experts_of_rank), num_slots, kNoExpert}};
  for (std::int64_t rank = 0; rank < placement.slots.rows(); ++rank) {
    const auto& experts = at(experts_of_rank, rank);
    C2R_REQUIRE(std::ssize(experts) == num_slots, kInvalidArgument,
                "rank {} holds {} experts, but rank 0 holds {}: every rank needs as many", rank,
                experts.size(), num_slots);
    std::ranges::transform(experts, placement.slots.row(rank).begin(),
                           [](std::int32_t e) { return ExpertId{e}; });
  }
  return placement;
}

Placement place_contiguous(std::int32_t num_experts, std::int32_t ep_size) {
  C2R_REQUIRE(ep_size >= 1 && num_experts >= 0 && num_experts % ep_size == 0, kInvalidArgument,
              "{} experts cannot be split evenly over {} ranks", num_experts, ep_size);
  Placement placement{.num_experts = num_experts, .slots = {ep_size, num_experts / ep_size}};
  std::int32_t next = 0;
  for (ExpertId& slot : placement.slots.all()) slot = ExpertId{next++};
  return placement;
}

}  // namespace c2r
