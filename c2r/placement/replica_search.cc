#include "c2r/placement/replica_search.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
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
        asked_(energy),
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

  // The loads that the search tracks drift from the settled ones, to either side. So a bound is
  // approached in rounds, each searching against the bound that would have been just met before.
  Placement run() {
    const bool has_bound = asked_.max_load < std::numeric_limits<double>::infinity();
    if (!has_bound && asked_.imbalance_scale == 0) {  // copies alone: nothing has to settle
      search(effort_.work, 0.04);
      return best_;
    }
    // Without annealing, the first round that meets the bound is the last.
    const int num_rounds = !has_bound ? 1 : can_anneal() ? 4 : 8;
    Placement best = state_.placement();
    auto best_quality = settled_quality();
    for (int round = 1; round <= num_rounds && !limits_.reached(); ++round) {
      const std::int64_t work_until =
          can_anneal() ? effort_.work * round / num_rounds : effort_.work * (round + 1) / 2;
      search(work_until, round == 1 ? 0.04 : 0.012);
      state_ = ReplicaState(index_, cluster_, best_, is_fixed_to_nodes_);
      const auto quality = settled_quality();
      if (quality < best_quality) best = best_, best_quality = quality;
      if (!can_anneal() && best_quality.first == 0) break;
      const double ratio = static_cast<double>(std::ranges::max(state_.loads())) / asked_.max_load;
      energy_.max_load *= std::clamp(0.998 / ratio, 0.97, 1.03);
      best_ = {};
      keep_if_best();
    }
    return best;
  }

 private:
  using Change = ReplicaState::Change;

  std::pair<double, double> settled_quality() const {
    return {asked_.violation(cost(), state_.loads()), asked_.value(cost(), state_.loads())};
  }

  // Annealing pays once every pair of slots can be tried a few times.
  bool can_anneal() const {
    const std::int64_t num_slots = std::ssize(state_.placement().slots.all());
    const std::int64_t sets_per_move = std::max<std::int64_t>(1, 2 * sets_per_expert_);
    return effort_.work / (kWorkToCount * sets_per_move) > num_slots * num_slots;
  }

  // Until `work_until` in all.
  void search(std::int64_t work_until, double start_temperature) {
    if (can_anneal()) {
      anneal(work_ + (work_until - work_) * 4 / 5, start_temperature);
    } else {
      relieve();
    }
    polish(work_until);
  }

  double cost() const { return energy_.cost(state_.rank_copies(), state_.node_copies()); }
  // Value and penalties in one number.
  double energy() const {
    return energy_.value(cost(), state_.loads()) + energy_.violation(cost(), state_.loads());
  }

  // Of any loads.
  double least_energy(double cost) const {
    return energy_.copy_scale * cost + energy_.imbalance_scale +
           energy_.cost_penalty * std::max(0.0, cost - energy_.max_cost);
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
    if (const auto copies = state_.copies_after(changes)) {
      work_ += kWorkToCount * 2 * sets_per_expert_;
      const double least = least_energy(energy_.cost(copies->rank, copies->node));
      if (least - energy() > threshold) return false;
    }
    return make_changes(changes, threshold);
  }

  // Makes allowed changes; false if they were taken back.
  bool make_changes(std::span<const Change> changes, double threshold) {
    const double before = energy();
    work_ += kWorkToServe * state_.apply(changes);
    if (energy() - before > threshold) {
      state_.undo();
      return false;
    }
    keep_if_best();
    return true;
  }

  void anneal(std::int64_t work_until, double start_temperature) {
    constexpr double kEndTemperature = 0.002;
    const auto& slots = state_.placement().slots;
    const auto ep_size = static_cast<std::int32_t>(slots.rows());
    const auto slots_per_rank = static_cast<std::int32_t>(slots.cols());
    const double scale = static_cast<double>(index_.num_choices()) / index_.num_experts() *
                         std::max(energy_.rank_cost, energy_.node_cost);
    const double fall = std::log(kEndTemperature / start_temperature);
    const std::int64_t begin = work_;
    for (; work_ < work_until && !limits_.reached(); ++work_) {
      const double progress =
          static_cast<double>(work_ - begin) / static_cast<double>(work_until - begin);
      const double temperature = scale * start_temperature * std::exp(fall * progress);
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
    state_ = ReplicaState(index_, cluster_, best_, is_fixed_to_nodes_);
  }

  // Takes load from the busiest rank until it meets the bound or nothing helps. The few moves that
  // this needs do not count as work.
  void relieve() {
    constexpr std::size_t kTried = 4, kMostTried = 256;
    const std::int64_t work = work_, most_moves = std::int64_t{4} * state_.placement().ep_size();
    std::size_t tried = kTried, num_failed = 0;
    for (std::int64_t move = 0; move < most_moves && !limits_.reached(); ++move) {
      const auto busiest = std::ranges::max_element(state_.loads()) - state_.loads().begin();
      if (static_cast<double>(state_.loads()[std::size_t(busiest)]) <= energy_.max_load) break;
      const auto reliefs = best_reliefs(static_cast<std::int32_t>(busiest), num_failed, tried);
      const bool has_improved = std::ranges::any_of(
          reliefs, [&](const Relief& relief) { return make_changes(relief.changes(), -1e-9); });
      if (!has_improved && tried >= kMostTried) break;
      num_failed = has_improved ? 0 : tried;
      tried = has_improved ? kTried : 4 * tried;  // the estimates mislead: look further
    }
    work_ = work;
  }

  struct Relief {
    Change first, second;
    bool is_swap = false;
    double estimate = 0;  // the excess of the two ranks' loads; in the end, the energy with it

    std::vector<Change> changes() const {
      return is_swap ? std::vector{first, second} : std::vector{first};
    }
  };

  // The `first`th to `last`th by the excess that they leave, in the order of the energy that they
  // are estimated to leave; without those whose copies alone are too many.
  std::vector<Relief> best_reliefs(std::int32_t rank, std::size_t first, std::size_t last) {
    auto reliefs = reliefs_of(rank);
    last = std::min(last, reliefs.size());
    const auto by_estimate = [](const Relief& relief) { return relief.estimate; };
    std::ranges::partial_sort(reliefs, reliefs.begin() + std::ptrdiff_t(last), {}, by_estimate);
    reliefs.resize(last);
    reliefs.erase(reliefs.begin(), reliefs.begin() + std::ptrdiff_t(std::min(first, last)));
    const double before = energy();
    std::erase_if(reliefs, [&](Relief& relief) {
      const auto copies = state_.copies_after(relief.changes());
      if (!copies) return false;
      const double cost = energy_.cost(copies->rank, copies->node);
      relief.estimate = cost + energy_.load_penalty * relief.estimate;
      return least_energy(cost) >= before;
    });
    std::ranges::sort(reliefs, {}, by_estimate);
    return reliefs;
  }

  // An expert of `rank` changes places with one of another rank, or takes the place of a replica
  // there and leaves half of its load where it was.
  std::vector<Relief> reliefs_of(std::int32_t rank) const {
    std::vector<Relief> reliefs;
    const auto& slots = state_.placement().slots;
    const auto excess = [&](std::int32_t of, std::int64_t change) {
      return std::max(
          0.0, static_cast<double>(state_.loads()[std::size_t(of)] + change) - energy_.max_load);
    };
    for (std::int32_t slot = 0; slot < slots.cols(); ++slot) {
      const auto expert = static_cast<std::int32_t>(slots(rank, slot));
      const std::int64_t load = state_.served_load(expert, rank);
      for (std::int32_t other = 0; other < slots.rows(); ++other) {
        if (other == rank) continue;
        for (std::int32_t place = 0; place < slots.cols(); ++place) {
          const auto old = static_cast<std::int32_t>(slots(other, place));
          const std::int64_t old_load = state_.served_load(old, other);
          const Change there{other, place, expert};
          const std::int64_t swapped = load - old_load;
          const Relief swap{
              there, {rank, slot, old}, true, excess(rank, -swapped) + excess(other, swapped)};
          if (state_.is_allowed(swap.changes())) reliefs.push_back(swap);
          const Relief copy{
              there, {}, false, excess(rank, -load / 2) + excess(other, load / 2 - old_load)};
          if (state_.is_allowed(copy.changes())) reliefs.push_back(copy);
        }
      }
    }
    return reliefs;
  }

  // Sweeps over the ranks until nothing improves: each replica against the best candidates.
  void polish(std::int64_t work_until) {
    constexpr std::size_t kCandidates = 4;
    bool has_improved = true;
    while (has_improved) {
      has_improved = false;
      for (std::int32_t rank = 0; rank < state_.placement().ep_size(); ++rank) {
        if (work_ >= work_until || limits_.reached()) return;
        has_improved |= polish_rank(rank, kCandidates, work_until);
      }
    }
  }

  bool polish_rank(std::int32_t rank, std::size_t num_candidates, std::int64_t work_until) {
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
      for (std::size_t i = 0; i < count && work_ < work_until; ++i) {
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
  const SearchEnergy asked_;
  SearchEnergy energy_;  // asked_, but for the bound that a round aims at
  bool is_fixed_to_nodes_;
  const ReplicaEffort& effort_;
  const SearchLimits& limits_;
  ReplicaState state_;
  FastRandom random_;
  std::int64_t sets_per_expert_ = 0;  // on average
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
