// Annealing of a placement with replicas, in rounds that approach the bound on the largest load.
//
// Outline of ReplicaSearch::run():
//   1. anneal(): draw a slot. If its expert has another replica, mostly give it to a random expert;
//      else exchange it with the slot of another rank. The change of the energy
//        E = value(cost, loads) + violation(cost, loads)        (search_energy.h)
//      is estimated in constant time as if every token stayed with the slots that serve it
//      (change_estimate.h). Only a change that this accepts serves its tokens anew, which are the
//      sets of two experts, and is accepted if E grows by at most -temperature x log(u), u uniform
//      in (0, 1). Then polish(): sweep over the ranks and give the slot of a replica to one of the
//      four experts with the largest gains_on() the rank, as long as E falls.
//   2. Where the effort does not anneal, place_slots() instead: anneal where the slots are
//      (slot_search.h); after a round that exceeded the bound, give a replica's slot to an expert
//      of the busiest rank first (replicate_busiest()).
//   3. With a bound on the load or a weight on imbalance, approach_bound() repeats 1 or 2: loads
//      are exact only after all tokens have been served anew, so each round aims at the bound that
//      the round before would have met. The best settled placement of all rounds is returned.
//   4. Where loads are judged by another order of the tokens (ServedLoads), expected_loads() take
//      the place of loads in 1 to 3:
//        expected_load(rank) = load(rank) + shift(rank)
//        shift(rank) = served(rank) - settled load(rank), of the placement of the round before
#include "c2r/placement/search/replicas/replica_search.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <utility>

#include "c2r/core/at.h"
#include "c2r/placement/search/fast_random.h"
#include "c2r/placement/search/replicas/change_estimate.h"
#include "c2r/placement/search/replicas/slot_search.h"

namespace c2r {
namespace {

// The work of one set, in the unit of PartitionEffort::work.
constexpr std::int64_t kWorkToCount = 1, kWorkToServe = 8;

// Rounds of place_slots() until the bound is met. On DeepSeek-V3's shape, loads settled some 4 %
// above the first aim; a lower aim costs copies.
constexpr int kMostRounds = 16;
constexpr double kFirstAim = 0.98;

// How often a slot of a replicated expert is given to another expert rather than exchanged.
constexpr double kChangeShare = 0.9;
// Tries for each pair of slots without an accepted one, after which an annealing is frozen.
constexpr double kPatience = 10;

class ReplicaSearch {
 public:
  ReplicaSearch(const SetIndex& index, const Cluster& cluster, const SearchEnergy& energy,
                bool is_fixed_to_nodes, const ReplicaEffort& effort, const SearchLimits& limits,
                ReplicaState start, const ServedLoads* served)
      : index_(index),
        cluster_(cluster),
        asked_(energy),
        energy_(energy),
        is_fixed_to_nodes_(is_fixed_to_nodes),
        effort_(effort),
        limits_(limits),
        served_(served),
        state_(std::move(start)),
        random_(effort.seed) {
    sets_per_expert_ = index.num_set_choices() / index.num_experts();
    if (effort.anneals) state_.keep_tables();
    keep_if_best();
  }

  ReplicaState run() {
    const bool has_bound = asked_.max_load < std::numeric_limits<double>::infinity();
    if (!effort_.anneals) {
      approach_bound(kMostRounds, [&](int round) { place_slots(round); });
    } else if (has_bound || asked_.imbalance_scale > 0) {
      const int num_rounds = has_bound ? effort_.num_rounds : 1;
      approach_bound(num_rounds, [&](int round) {
        anneal_and_polish(effort_.work * round / num_rounds,
                          round == 1 ? effort_.start_temperature : effort_.later_temperature);
        return_to_best();
      });
    } else {  // copies alone are minimized: they do not depend on settled loads
      anneal_and_polish(effort_.work, effort_.start_temperature);
      return_to_best();
    }
    return std::move(state_);
  }

 private:
  using Change = ReplicaState::Change;

  Quality settled_quality() { return asked_.quality(cost(), expected_loads()); }

  // The loads by which a placement is judged: the tracked ones and, for each rank, what the loads
  // of ServedLoads were above them when they were last counted.
  std::span<const std::int64_t> expected_loads() {
    if (shift_.empty()) return state_.scenario_loads();
    expected_.resize(shift_.size());
    std::ranges::transform(state_.loads(), shift_, expected_.begin(), std::plus());
    return expected_;
  }
  // Called with settled loads.
  void count_served_loads() {
    if (served_ == nullptr || counted_ == state_.placement()) return;
    const std::vector<double> served = (*served_)(state_.placement());
    if (served.empty()) return;
    counted_ = state_.placement();
    shift_.clear();
    for (std::size_t rank = 0; rank < served.size(); ++rank) {
      shift_.push_back(std::llround(served[rank]) - state_.loads()[rank]);
    }
  }

  // Settled loads differ from those that a search tracks, to either side. So a bound is approached
  // in rounds; each searches against the bound that the round before would have just met. `search`
  // and approach_bound() leave a state with settled loads, approach_bound() the best one.
  void approach_bound(int num_rounds, const std::function<void(int round)>& search) {
    ReplicaState best = state_;
    count_served_loads();
    auto best_quality = settled_quality();
    if (!effort_.anneals) aim_at(kFirstAim * asked_.max_load);
    for (int round = 1; round <= num_rounds && !limits_.reached(); ++round) {
      best_ = {};
      keep_if_best();
      search(round);
      count_served_loads();
      const auto quality = settled_quality();
      if (quality < best_quality) best = state_, best_quality = quality;
      if (!effort_.anneals && best_quality.violation == 0) break;
      const double ratio =
          static_cast<double>(std::ranges::max(expected_loads())) / asked_.max_load;
      aim_at(energy_.max_load * std::clamp(0.998 / ratio, 0.97, 1.03));
    }
    state_ = std::move(best);
  }

  // Sets the bound of the next round, no tighter than halfway to perfect balance.
  void aim_at(double max_load) {
    energy_.max_load = std::max(max_load, (asked_.mean_load + asked_.max_load) / 2);
  }

  void return_to_best() {
    state_ = ReplicaState(index_, cluster_, best_, is_fixed_to_nodes_);
    if (effort_.anneals) state_.keep_tables();
  }

  // Works until work_ reaches `work_until`.
  void anneal_and_polish(std::int64_t work_until, double start_temperature) {
    anneal(work_ + (work_until - work_) * 4 / 5, start_temperature);
    polish(work_until);
  }

  // Anneals where the slots are. After a round that exceeded the bound, also changes what a slot
  // holds and starts at a lower temperature.
  void place_slots(int round) {
    if (round > 1) replicate_busiest();
    const PartitionEffort effort{.work = effort_.work / (round == 1 ? 2 : 4),
                                 .start_temperature = round == 1 ? 0.01 : 0.004,
                                 .end_temperature = 0.001,
                                 .seed = effort_.seed + static_cast<std::uint64_t>(round)};
    const Placement placement =
        anneal_slots(index_, cluster_, energy_, is_fixed_to_nodes_, effort, limits_, state_);
    state_ = ReplicaState(index_, cluster_, placement, is_fixed_to_nodes_);
  }

  // An expert of the busiest rank replaces a replica of the least busy rank where that lowers the
  // energy, of the next least busy rank otherwise. Moving slots alone cannot help where one slot is
  // too busy.
  void replicate_busiest() {
    constexpr int kMostTried = 32;
    const auto& slots = state_.placement().slots;
    std::vector<std::int32_t> ranks(static_cast<std::size_t>(slots.rows()));
    std::iota(ranks.begin(), ranks.end(), 0);
    std::ranges::stable_sort(ranks, {}, [&](auto rank) { return at(state_.loads(), rank); });
    int num_tried = 0;
    for (const std::int32_t rank : ranks) {
      for (std::int32_t slot = 0; slot < slots.cols(); ++slot) {
        if (state_.num_replicas(static_cast<std::int32_t>(slots(rank, slot))) == 1) continue;
        for (std::int32_t busy = 0; busy < slots.cols(); ++busy) {
          const auto expert = static_cast<std::int32_t>(slots(ranks.back(), busy));
          const std::array change{Change{rank, slot, expert}};
          if (try_changes(change, -1e-9) || ++num_tried == kMostTried) return;
        }
      }
    }
  }

  double cost() const { return energy_.cost(state_.rank_copies(), state_.node_copies()); }
  // E of the outline.
  double energy() {
    const auto loads = expected_loads();
    return energy_.value(cost(), loads) + energy_.violation(cost(), loads);
  }

  // The least energy that a placement with this cost can have, whatever its loads.
  double least_energy(double cost) const {
    return energy_.copy_scale * cost + energy_.imbalance_scale +
           energy_.cost_penalty * std::max(0.0, cost - energy_.max_cost);
  }

  // By the energy with the full penalty: a start within the bound is not better than all that
  // exceeds it a little and that later rounds bring within.
  void keep_if_best() {
    SearchEnergy judge = energy_;
    judge.load_penalty = asked_.load_penalty;
    const auto loads = expected_loads();
    const double met = judge.value(cost(), loads) + judge.violation(cost(), loads);
    if (best_.num_experts > 0 && met >= best_energy_) return;
    best_energy_ = met;
    best_ = state_.placement();
  }

  // Tries one change; returns whether it was kept.
  bool try_changes(std::span<const Change> changes, double threshold) {
    if (!state_.is_allowed(changes)) return false;
    if (const auto copies = state_.copies_after(changes)) {
      work_ += kWorkToCount * 2 * sets_per_expert_;
      const double least = least_energy(energy_.cost(copies->rank, copies->node));
      if (least - energy() > threshold) return false;
    }
    return make_changes(changes, threshold);
  }

  // Makes allowed changes; returns whether they were kept.
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
    const double scale = static_cast<double>(index_.num_choices()) / index_.num_experts() *
                         std::max(energy_.rank_cost, energy_.node_cost);
    const double fall = std::log(effort_.end_temperature / start_temperature);
    const auto num_slots = static_cast<double>(num_movable());
    const auto patience = static_cast<std::int64_t>(kPatience * num_slots * num_slots);
    const std::int64_t begin = work_, all = work_until - begin;
    double temperature = 0;
    std::int64_t next_check = work_, num_idle = 0;
    for (; work_ < work_until && num_idle < patience; ++work_) {
      if (work_ >= next_check) {
        if (limits_.reached()) break;
        const double progress = static_cast<double>(work_ - begin) / static_cast<double>(all);
        temperature = scale * start_temperature * std::exp(fall * progress);
        energy_.load_penalty = asked_.load_penalty * std::pow(effort_.start_penalty, 1 - progress);
        next_check = work_ + std::clamp<std::int64_t>(all / 512, 1, 4096);
      }
      num_idle = try_random(temperature) ? 0 : num_idle + 1;
    }
    energy_.load_penalty = asked_.load_penalty;
    if (state_.placement() != best_) return_to_best();
  }

  std::size_t num_movable() const {
    return effort_.movable.empty() ? state_.placement().slots.all().size() : effort_.movable.size();
  }
  std::int32_t random_slot() {
    const std::int32_t i = random_.below(static_cast<std::int32_t>(num_movable()));
    return effort_.movable.empty() ? i : effort_.movable[std::size_t(i)];
  }

  // Tries a random change or swap; returns whether it was kept.
  bool try_random(double temperature) {
    // One draw in 10^10 accepts a growth of 24 temperatures. The estimate is rather above the truth
    // than below, so a change that it puts a little too high is tried.
    constexpr double kHopeless = 24, kSlack = 1;
    const auto slots = state_.placement().slots.all();
    const auto slots_per_rank = static_cast<std::int32_t>(state_.placement().slots_per_rank());
    const std::int32_t a = random_slot();
    const auto expert_a = static_cast<std::int32_t>(slots[std::size_t(a)]);
    const Change place_a{a / slots_per_rank, a % slots_per_rank, expert_a};
    std::array<Change, 2> changes{place_a, place_a};
    const bool is_swap = state_.num_replicas(expert_a) == 1 || random_.unit() >= kChangeShare;
    double estimate = 0;
    if (is_swap) {
      const std::int32_t b = random_slot();
      changes[0].expert = static_cast<std::int32_t>(slots[std::size_t(b)]);
      changes[1] = {b / slots_per_rank, b % slots_per_rank, expert_a};
      if (changes[0].rank == changes[1].rank) return false;
      estimate = estimate_.of_swap(energy_, expected_loads(), a, b);
    } else {
      changes[0].expert = random_.below(index_.num_experts());
      estimate = estimate_.of_change(energy_, expected_loads(), a, changes[0].expert);
    }
    if (estimate > kHopeless * temperature) return false;
    const double threshold = -temperature * std::log(random_.unit());
    if (estimate > threshold + kSlack * temperature) return false;
    return try_changes(std::span(changes).first(is_swap ? 2 : 1), threshold);
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
      return std::pair(-at(gains, a), a) < std::pair(-at(gains, b), b);
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
  const ServedLoads* served_;
  ReplicaState state_;
  ChangeEstimate estimate_{state_};
  std::vector<std::int64_t> shift_;     // [ep_size], of expected_loads(); empty without served_
  Placement counted_;                   // that shift_ is of
  std::vector<std::int64_t> expected_;  // [ep_size], scratch
  FastRandom random_;
  std::int64_t sets_per_expert_ = 0;  // on average
  std::int64_t work_ = 0;
  double best_energy_ = 0;
  Placement best_;
};

}  // namespace

ReplicaState search_replicas(const SetIndex& index, const Cluster& cluster,
                             const SearchEnergy& energy, bool is_fixed_to_nodes,
                             const ReplicaEffort& effort, const SearchLimits& limits,
                             ReplicaState start, const ServedLoads* served) {
  return ReplicaSearch(index, cluster, energy, is_fixed_to_nodes, effort, limits, std::move(start),
                       served)
      .run();
}

}  // namespace c2r
