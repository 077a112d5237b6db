// place_eplb(): runs EPLB and moves the second replica of an expert on one rank elsewhere.
#include <algorithm>
#include <cmath>
#include <optional>
#include <tuple>

#include "c2r/core/at.h"
#include "c2r/core/error.h"
#include "c2r/placement/baselines/baselines_internal.h"
#include "c2r/placement/baselines/eplb.h"

namespace c2r {
namespace {

class Repair {
 public:
  Repair(const BaselineProblem& problem, std::span<const ExpertId> slots)
      : problem_(problem),
        slots_(slots.begin(), slots.end()),
        num_replicas_(static_cast<std::size_t>(problem.num_experts())) {
    for (const ExpertId e : slots) ++at(num_replicas_, e);
  }

  void run() {
    for (std::size_t slot = 0; slot < slots_.size(); ++slot) {
      if (!is_repeated(slot)) continue;
      if (const auto partner = best_exchange(slot)) {
        std::swap(slots_[slot], slots_[*partner]);
      } else {
        give_away(slot);
      }
    }
  }
  std::span<const ExpertId> slots() const { return slots_; }

 private:
  std::size_t rank_of(std::size_t slot) const {
    return slot / static_cast<std::size_t>(problem_.slots_per_rank);
  }
  std::span<const ExpertId> rank(std::size_t slot) const {
    const auto size = static_cast<std::size_t>(problem_.slots_per_rank);
    return std::span(slots_).subspan(rank_of(slot) * size, size);
  }
  bool is_on_rank_of(std::size_t slot, ExpertId e) const {
    return std::ranges::find(rank(slot), e) != rank(slot).end();
  }
  bool is_repeated(std::size_t slot) const {
    const std::size_t position = slot % static_cast<std::size_t>(problem_.slots_per_rank);
    const auto earlier = rank(slot).first(position);
    return std::ranges::find(earlier, slots_[slot]) != earlier.end();
  }
  double load(ExpertId e) const {
    const auto i = static_cast<std::int64_t>(index(e));
    return static_cast<double>(problem_.counts(i, i)) / at(num_replicas_, e);
  }

  std::optional<std::size_t> best_exchange(std::size_t slot) const {
    std::optional<std::size_t> best;
    std::tuple<bool, double> best_cost;  // in another node, change of load
    const auto node_of = [&](std::size_t s) {
      return problem_.cluster.node_of(RankId{static_cast<std::int32_t>(rank_of(s))});
    };
    for (std::size_t other = 0; other < slots_.size(); ++other) {
      if (is_on_rank_of(slot, slots_[other]) || is_on_rank_of(other, slots_[slot])) continue;
      const std::tuple cost{node_of(other) != node_of(slot),
                            std::abs(load(slots_[other]) - load(slots_[slot]))};
      if (!best || cost < best_cost) best = other, best_cost = cost;
    }
    return best;
  }

  void give_away(std::size_t slot) {
    std::optional<ExpertId> hottest;
    for (std::int32_t e = 0; e < problem_.num_experts(); ++e) {
      if (is_on_rank_of(slot, ExpertId{e})) continue;
      if (!hottest || load(ExpertId{e}) > load(*hottest)) hottest = ExpertId{e};
    }
    C2R_ASSERT(hottest.has_value());  // slots_per_rank <= num_experts, and one expert is repeated
    --at(num_replicas_, slots_[slot]);
    ++at(num_replicas_, *hottest);
    slots_[slot] = *hottest;
  }

  const BaselineProblem& problem_;
  std::vector<ExpertId> slots_;
  std::vector<std::int32_t> num_replicas_;
};

}  // namespace

Placement internal::place_eplb(const BaselineProblem& problem) {
  std::vector<float> loads;
  for (std::int64_t e = 0; e < problem.num_experts(); ++e) {
    loads.push_back(static_cast<float>(problem.counts(e, e)));
  }
  const EplbResult result = rebalance_eplb(loads, {.num_slots = problem.num_slots(),
                                                   .num_groups = problem.num_groups,
                                                   .num_nodes = problem.cluster.num_nodes,
                                                   .num_ranks = problem.cluster.ep_size()});
  Placement placement{.num_experts = problem.num_experts(),
                      .slots = {problem.cluster.ep_size(), problem.slots_per_rank}};
  Repair repair(problem, result.expert_of_slot);
  repair.run();
  std::ranges::copy(repair.slots(), placement.slots.all().begin());
  return placement;
}

}  // namespace c2r
