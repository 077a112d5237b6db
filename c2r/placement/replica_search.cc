#include "c2r/placement/replica_search.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <utility>

#include "c2r/placement/fast_random.h"

namespace c2r {
namespace {

// What one set costs, in units of effort (PartitionEffort).
constexpr std::int64_t kWorkToCount = 1, kWorkToServe = 8;

class ReplicaSearch {
 public:
  ReplicaSearch(const SetIndex& index, const Cluster& cluster, const SearchEnergy& energy,
                bool is_fixed_to_nodes, const ReplicaEffort& effort, const SearchLimits& limits,
                const Placement& start)
      : index_(index),
        cluster_(cluster),
        energy_(energy),
        is_fixed_to_nodes_(is_fixed_to_nodes),
        effort_(effort),
        limits_(limits),
        state_(index, cluster, start, is_fixed_to_nodes),
        random_(effort.seed) {
    for (std::int32_t e = 0; e < index.num_experts(); ++e) {
      sets_per_expert_ += std::ssize(index.sets_of(e));
    }
    sets_per_expert_ /= index.num_experts();
    keep_if_best();
  }

  Placement run() {
    const std::int64_t num_slots = std::ssize(state_.placement().slots.all());
    const std::int64_t sets_per_move = std::max<std::int64_t>(1, 2 * sets_per_expert_);
    const std::int64_t affordable = effort_.work / (kWorkToCount * sets_per_move);
    // Annealing pays once every pair of slots can be tried a few times.
    if (affordable > num_slots * num_slots) anneal(effort_.work * 4 / 5);
    polish();
    return best_;
  }

 private:
  using Change = ReplicaState::Change;

  double cost() const { return energy_.cost(state_.rank_copies(), state_.node_copies()); }
  // Value and penalties in one number.
  double energy() const {
    const double excess = energy_.violation(cost(), state_.loads());
    return energy_.value(cost(), state_.loads()) + penalty_ * excess;
  }

  // Of any loads.
  double least_energy(double cost) const {
    return energy_.copy_scale * cost + energy_.imbalance_scale +
           penalty_ * energy_.cost_penalty * std::max(0.0, cost - energy_.max_cost);
  }

  void keep_if_best() {
    const std::pair met{energy_.violation(cost(), state_.loads()),
                        energy_.value(cost(), state_.loads())};
    if (best_.num_experts > 0 && met >= best_energy_) return;
    best_energy_ = met;
    best_ = state_.placement();
  }

  // Tries one change; true if it was kept.
  bool try_changes(std::span<const Change> changes, double threshold) {
    if (!state_.is_allowed(changes)) return false;
    const double before = energy();
    if (const auto copies = state_.copies_after(changes)) {
      work_ += kWorkToCount * 2 * sets_per_expert_;
      if (least_energy(energy_.cost(copies->rank, copies->node)) - before > threshold) return false;
    }
    work_ += kWorkToServe * state_.apply(changes);
    if (energy() - before > threshold) {
      state_.undo();
      return false;
    }
    keep_if_best();
    return true;
  }

  void anneal(std::int64_t budget) {
    const auto& slots = state_.placement().slots;
    const auto ep_size = static_cast<std::int32_t>(slots.rows());
    const auto slots_per_rank = static_cast<std::int32_t>(slots.cols());
    const double scale = static_cast<double>(index_.num_choices()) / index_.num_experts() *
                         std::max(energy_.rank_cost, energy_.node_cost);
    const double fall = std::log(effort_.end_temperature / effort_.start_temperature);
    for (; work_ < budget && !limits_.reached(); ++work_) {
      const double progress = static_cast<double>(work_) / static_cast<double>(budget);
      const double temperature = scale * effort_.start_temperature * std::exp(fall * progress);
      penalty_ = std::pow(effort_.start_penalty, 1 - progress);
      const Change a{random_.below(ep_size), random_.below(slots_per_rank)};
      const double threshold = -temperature * std::log(random_.unit());
      const auto expert_a = static_cast<std::int32_t>(slots(a.rank, a.slot));
      if (state_.num_replicas(expert_a) > 1 && random_.below(4) == 0) {
        const std::array change{Change{a.rank, a.slot, random_.below(index_.num_experts())}};
        try_changes(change, threshold);
        continue;
      }
      const Change b{random_.below(ep_size), random_.below(slots_per_rank)};
      if (a.rank == b.rank) continue;
      const auto expert_b = static_cast<std::int32_t>(slots(b.rank, b.slot));
      const std::array swap{Change{a.rank, a.slot, expert_b}, Change{b.rank, b.slot, expert_a}};
      try_changes(swap, threshold);
    }
    penalty_ = 1;
    state_ = ReplicaState(index_, cluster_, best_, is_fixed_to_nodes_);
  }

  // Sweeps over the ranks until nothing improves: each replica against the best candidates.
  void polish() {
    constexpr std::size_t kCandidates = 4;
    bool has_improved = true;
    while (has_improved) {
      has_improved = false;
      for (std::int32_t rank = 0; rank < state_.placement().ep_size(); ++rank) {
        if (work_ >= effort_.work || limits_.reached()) return;
        has_improved |= polish_rank(rank, kCandidates);
      }
    }
  }

  bool polish_rank(std::int32_t rank, std::size_t num_candidates) {
    const auto gains = state_.gains_on(rank);
    work_ += sets_per_expert_ * state_.placement().slots_per_rank();
    std::vector<std::int32_t> order(gains.size());
    std::iota(order.begin(), order.end(), 0);
    const auto count = std::min(num_candidates, order.size());
    std::ranges::partial_sort(order, order.begin() + std::ptrdiff_t(count), [&](auto a, auto b) {
      return std::pair(-gains[std::size_t(a)], a) < std::pair(-gains[std::size_t(b)], b);
    });
    bool has_improved = false;
    for (std::int32_t slot = 0; slot < state_.placement().slots_per_rank(); ++slot) {
      for (std::size_t i = 0; i < count && work_ < effort_.work; ++i) {
        const auto old = static_cast<std::int32_t>(state_.placement().slots(rank, slot));
        if (state_.num_replicas(old) == 1) break;
        const std::array change{Change{rank, slot, order[i]}};
        has_improved |= try_changes(change, -1e-9);
      }
    }
    return has_improved;
  }

  const SetIndex& index_;
  const Cluster& cluster_;
  const SearchEnergy& energy_;
  bool is_fixed_to_nodes_;
  const ReplicaEffort& effort_;
  const SearchLimits& limits_;
  ReplicaState state_;
  FastRandom random_;
  std::int64_t sets_per_expert_ = 0;  // on average
  double penalty_ = 1;
  std::int64_t work_ = 0;
  std::pair<double, double> best_energy_;  // violation, value
  Placement best_;
};

}  // namespace

Placement search_replicas(const SetIndex& index, const Cluster& cluster, const SearchEnergy& energy,
                          bool is_fixed_to_nodes, const ReplicaEffort& effort,
                          const SearchLimits& limits, const Placement& start) {
  return ReplicaSearch(index, cluster, energy, is_fixed_to_nodes, effort, limits, start).run();
}

}  // namespace c2r
