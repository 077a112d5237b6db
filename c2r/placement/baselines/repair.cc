// Moves the second replica of an expert on one rank elsewhere.
#include "c2r/placement/baselines/repair.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <tuple>
#include <vector>

#include "c2r/core/at.h"
#include "c2r/core/error.h"

namespace c2r {
namespace {

class Repair {
 public:
  Repair(const Matrix<ExpertId>& slots, std::span<const double> loads, const Cluster& cluster)
      : slots_per_rank_(static_cast<std::size_t>(slots.cols())),
        loads_(loads),
        cluster_(cluster),
        slots_(slots.all().begin(), slots.all().end()),
        num_replicas_(loads.size()) {
    for (const ExpertId e : slots_) ++at(num_replicas_, e);
  }

  // Returns how many slots it has repaired.
  std::int64_t run() {
    std::int64_t num_repaired = 0;
    for (std::size_t slot = 0; slot < slots_.size(); ++slot) {
      if (!is_repeated(slot)) continue;
      ++num_repaired;
      if (const auto partner = best_exchange(slot)) {
        std::swap(slots_[slot], slots_[*partner]);
      } else {
        give_away(slot);
      }
    }
    return num_repaired;
  }
  std::span<const ExpertId> slots() const { return slots_; }

 private:
  std::size_t rank_of(std::size_t slot) const { return slot / slots_per_rank_; }
  std::span<const ExpertId> rank(std::size_t slot) const {
    return std::span(slots_).subspan(rank_of(slot) * slots_per_rank_, slots_per_rank_);
  }
  bool is_on_rank_of(std::size_t slot, ExpertId e) const {
    return std::ranges::find(rank(slot), e) != rank(slot).end();
  }
  bool is_repeated(std::size_t slot) const {
    const auto earlier = rank(slot).first(slot % slots_per_rank_);
    return std::ranges::find(earlier, slots_[slot]) != earlier.end();
  }
  double load(ExpertId e) const { return at(loads_, e) / at(num_replicas_, e); }

  std::optional<std::size_t> best_exchange(std::size_t slot) const {
    std::optional<std::size_t> best;
    std::tuple<bool, double> best_cost;  // in another node, change of load
    const auto node_of = [&](std::size_t s) {
      return cluster_.node_of(RankId{static_cast<std::int32_t>(rank_of(s))});
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
    for (std::size_t e = 0; e < loads_.size(); ++e) {
      const ExpertId expert{static_cast<std::int32_t>(e)};
      if (is_on_rank_of(slot, expert)) continue;
      if (!hottest || load(expert) > load(*hottest)) hottest = expert;
    }
    C2R_ASSERT(hottest.has_value());  // slots_per_rank <= num_experts, and one expert is repeated
    --at(num_replicas_, slots_[slot]);
    ++at(num_replicas_, *hottest);
    slots_[slot] = *hottest;
  }

  const std::size_t slots_per_rank_;
  const std::span<const double> loads_;
  const Cluster& cluster_;
  std::vector<ExpertId> slots_;
  std::vector<std::int32_t> num_replicas_;
};

}  // namespace

std::int64_t empty_repeats(Matrix<ExpertId>& slots) {
  std::int64_t num_emptied = 0;
  for (std::int64_t rank = 0; rank < slots.rows(); ++rank) {
    const auto row = slots.row(rank);
    for (auto slot = row.begin(); slot != row.end(); ++slot) {
      if (*slot == kNoExpert || std::find(row.begin(), slot, *slot) == slot) continue;
      *slot = kNoExpert;
      ++num_emptied;
    }
  }
  return num_emptied;
}

RepairedPlacement repair_repeats(const Matrix<ExpertId>& slots, std::span<const double> loads,
                                 const Cluster& cluster) {
  C2R_REQUIRE(slots.rows() == cluster.ep_size(), kInvalidArgument,
              "there are slots of {} ranks, but the cluster has {}", slots.rows(),
              cluster.ep_size());
  C2R_REQUIRE(slots.cols() <= std::ssize(loads), kInvalidArgument,
              "a rank has {} slots, which {} experts cannot fill without repeating one",
              slots.cols(), loads.size());
  RepairedPlacement repaired{.placement = {.num_experts = static_cast<std::int32_t>(loads.size()),
                                           .slots = {slots.rows(), slots.cols()}}};
  Repair repair(slots, loads, cluster);
  repaired.num_repaired = repair.run();
  std::ranges::copy(repair.slots(), repaired.placement.slots.all().begin());
  check_placement(repaired.placement);
  return repaired;
}

}  // namespace c2r
