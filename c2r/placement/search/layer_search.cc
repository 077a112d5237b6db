// The search for one layer: which steps run, in which order, and how much effort each one gets.
//
// Outline of LayerSearch::run():
//   1. Index the token sets; fix ranks to nodes where groups of experts must stay together.
//   2. Search in rounds and keep the best: a search with more effort begins with the rounds of one
//      with less, so it is never worse. Without redundant slots the effort of rounds grows.
//      Annealed replicas are combined: two results make one, two of these one more, and so on.
//
//      Each round begins with contiguous experts. With more groups than nodes, groups are placed on
//      nodes first, as a problem of its own whose experts are the groups (first_ranks.h).
//      a. best_partition(): anneal one slot an expert (partition_stages.h). On several nodes both
//         ways are tried, nodes first and then ranks, or all at once; the better one stays.
//      b. finish_by_columns(): without redundant slots and where columns are few, find the optimum.
//      c. filled(): give redundant slots to replicas, greedily (replica_fill.h).
//      d. with_replicas(): anneal slots and replicas together (replica_stages.h) or, where there
//         are too many slots for that, move slots alone (replica_search.h).
//      e. measure_state(): count the result anew, with its bounds.
//      f. combine(): with the result of the round before, where replicas are annealed.
// Steps a and d share the effort by partition_work(), replica_work() and slot_work().
#include "c2r/placement/search/layer_search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "c2r/core/at.h"
#include "c2r/core/error.h"
#include "c2r/core/rng.h"
#include "c2r/placement/moves/relabel.h"
#include "c2r/placement/search/column_search.h"
#include "c2r/placement/search/copy_bounds.h"
#include "c2r/placement/search/first_ranks.h"
#include "c2r/placement/search/measure_state.h"
#include "c2r/placement/search/partition_search.h"
#include "c2r/placement/search/partition_stages.h"
#include "c2r/placement/search/replicas/replica_fill.h"
#include "c2r/placement/search/replicas/replica_search.h"
#include "c2r/placement/search/replicas/replica_stages.h"
#include "c2r/placement/search/replicas/replica_state.h"
#include "c2r/placement/search/set_index.h"

namespace c2r {
namespace {

std::vector<double> checked_loads(const ServedLoads& served, const Placement& placement) {
  std::vector<double> loads = served(placement);
  C2R_REQUIRE(loads.empty() || std::ssize(loads) == placement.ep_size(), kInvalidArgument,
              "loads of {} ranks were counted, but there are {}", loads.size(),
              placement.ep_size());
  return loads;
}

class LayerSearch {
 public:
  LayerSearch(const TokenSets& sets, const Cluster& cluster, const PlacementObjective& objective,
              const OptimizeOptions& options, const SearchLimits& limits, const ServedLoads& served)
      : sets_(sets),
        options_(options),
        limits_(limits),
        index_(sets),
        bounds_(index_),
        stages_(index_, limits_) {
    const std::int32_t ep_size = cluster.ep_size();
    const std::int32_t base = (sets.num_experts + ep_size - 1) / ep_size;
    slots_per_rank_ = base + options.redundant_slots_per_rank;
    C2R_REQUIRE(options.redundant_slots_per_rank >= 0 && slots_per_rank_ <= sets.num_experts,
                kInvalidArgument, "{} redundant slots make {} slots a rank for {} experts",
                options.redundant_slots_per_rank, slots_per_rank_, sets.num_experts);
    problem_ = {.index = &index_,
                .cluster = cluster,
                .num_items = base * ep_size,
                .energy = energy_for(index_, sets.num_tokens, cluster, objective),
                .domain_of_rank = std::vector<std::int32_t>(std::size_t(ep_size))};
    if (options.num_groups) fix_groups();
    if (served)
      served_ = [this, &served](const Placement& placement) { return loads_of(served, placement); };
  }

  OptimizedPlacement run(const PlacementObjective& objective) {
    OptimizedPlacement result = search_rounds(objective);
    sort_slots(result);
    // The columns are those within the bound: what misses it may cost less.
    if (result.meets_bounds && columns_bound_ && *columns_bound_ > result.copy_cost_bound) {
      result.value_bound += *columns_bound_ - result.copy_cost_bound;  // takes_columns(): kCopies
      result.copy_cost_bound = *columns_bound_;
    }
    result.is_proved_optimal |= is_proved_ && result.meets_bounds;
    result.is_proved_infeasible |= is_infeasible_ && !result.meets_bounds;
    result.is_cut_short = limits_.reached() && !result.is_proved_optimal;
    return result;
  }

 private:
  static constexpr double kWorkOfSlot = 45e3;  // of one start of replicas
  static constexpr double kCombiningWork = 2;  // of two starts that agree on nothing, in starts
  static constexpr double kMostAnnealedSlots = 256;
  // A table of all pairs of so many slots takes 8 MB.
  static constexpr std::int64_t kMostTabledSlots = 1024;

  static void sort_slots(OptimizedPlacement& result) {
    for (std::int64_t rank = 0; rank < result.placement.ep_size(); ++rank) {
      std::ranges::sort(result.placement.slots.row(rank));
    }
  }

  // The best placement of all rounds that the effort pays for.
  OptimizedPlacement search_rounds(const PlacementObjective& objective) {
    const auto first = first_ranks(sets_, problem_.cluster, options_, limits_);
    OptimizedPlacement best;
    std::vector<Found> found;  // of descending level
    double spent = 0;
    for (int round = 0; round == 0 || spent + round_effort(round) <= options_.effort; ++round) {
      effort_ = round_effort(round);
      seed_ = next_seed();
      Found met{judged(objective, search(objective, first, round))};
      if (round == 0 || best.violation > 0) mend(objective, met.placement);
      if (round == 0 || met.placement.quality() < best.quality()) best = met.placement;
      while (combines() && !found.empty() && found.back().level == met.level) {
        combine(objective, found.back().placement, met);
        found.pop_back();
        if (met.placement.quality() < best.quality()) best = met.placement;
      }
      found.push_back(std::move(met));
      if (is_proved_ || !can_improve(best) || limits_.reached()) break;
      spent += round_effort(round);
    }
    return best;
  }
  // A placement that 2^level starts have led to.
  struct Found {
    OptimizedPlacement placement;
    int level = 0;
  };
  // More slots need more starts, and more work for each (measured).
  int num_starts() const { return num_slots() <= 48 ? 4 : 8; }
  bool combines() const { return has_redundant_slots() && !has_too_many_slots(); }
  std::uint64_t next_seed() {
    const auto n = static_cast<std::uint64_t>(num_seeds_++);
    return n == 0 ? options_.seed : mix_bits(options_.seed + n);
  }

  // What a search with replicas finds varies more from seed to seed than with its work
  // (docs/placement.md): rounds have the same effort, and those of too many slots grow slowly.
  double round_effort(int round) const {
    if (combines()) return std::min(options_.effort, 1.0 / num_starts());
    const int num_doublings = has_redundant_slots() ? round / 4 : std::max(0, round - 1);
    return round == 0 ? std::min(options_.effort, 1.0) : std::ldexp(1, num_doublings);
  }

  // Anneals on from a placement above a bound by the loads of served_.
  void mend(const PlacementObjective& objective, OptimizedPlacement& met) {
    if (met.violation == 0 || !served_ || !has_replicas(met.placement) || limits_.reached()) return;
    ReplicaState state(index_, problem_.cluster, met.placement, is_fixed_to_nodes());
    OptimizedPlacement mended = judged(objective, annealed_on(std::move(state), 4));
    if (mended.quality() < met.quality()) met = std::move(mended);
  }

  // Makes one placement of two, whose slots that both agree on stay: those of the better one are
  // kept and the others annealed. (Evolutionary partitioners do the same: Sanders and Schulz,
  // Distributed Evolutionary Graph Partitioning, ALENEX 2012.)
  void combine(const PlacementObjective& objective, const OptimizedPlacement& other, Found& met) {
    const bool is_better = met.placement.quality() < other.quality();
    OptimizedPlacement better = is_better ? met.placement : other;
    const Placement& worse = is_better ? other.placement : met.placement.placement;
    const auto movable = differing_slots(better.placement, worse, problem_.cluster);
    met = {std::move(better), met.level + 1};
    if (movable.size() < 2) return;
    const double share = static_cast<double>(movable.size()) / static_cast<double>(num_slots());
    const ReplicaEffort effort{.work = static_cast<std::int64_t>(
                                   kCombiningWork * share * static_cast<double>(replica_work())),
                               .seed = next_seed(),
                               .movable = movable};
    const ReplicaState state(index_, problem_.cluster, met.placement.placement,
                             is_fixed_to_nodes());
    OptimizedPlacement combined = judged(objective, annealed_replicas(effort, state));
    if (combined.quality() < met.placement.quality()) met.placement = std::move(combined);
  }

  // Returns a state whose loads are settled.
  ReplicaState search(const PlacementObjective& objective, const std::vector<std::int32_t>& first,
                      int round) {
    std::vector<std::int32_t> rank_of = first;
    if (!index_is_empty()) rank_of = best_partition(rank_of);
    // Columns depend on the start too little to be listed in every round.
    if (round == 0 && !index_is_empty() && takes_columns() && !limits_.reached())
      rank_of = finish_by_columns(std::move(rank_of));
    ReplicaState state(index_, problem_.cluster, filled(rank_of), is_fixed_to_nodes());
    if (!has_redundant_slots() || index_is_empty() || !can_improve(measured(objective, state))) {
      return state;
    }
    return with_replicas(std::move(state));
  }

  std::int64_t num_slots() const {
    return std::int64_t{slots_per_rank_} * problem_.cluster.ep_size();
  }
  // Whether the effort does not pay for annealing slots together with their replicas.
  bool has_too_many_slots() const {
    const double share = std::min(1.0, options_.effort * num_starts());
    return has_redundant_slots() && static_cast<double>(num_slots()) > share * kMostAnnealedSlots;
  }

  ReplicaState with_replicas(ReplicaState state) {
    if (has_too_many_slots()) {
      const ReplicaEffort effort{.work = slot_work(), .seed = seed_, .anneals = false};
      state = search_replicas(index_, problem_.cluster, problem_.energy, is_fixed_to_nodes(),
                              effort, limits_, std::move(state), served_if_any());
      return num_slots() <= kMostTabledSlots ? annealed_on(std::move(state), 2) : state;
    }
    return annealed_replicas({.work = replica_work(), .seed = seed_}, state);
  }
  ReplicaState annealed_replicas(const ReplicaEffort& effort, const ReplicaState& state) const {
    return anneal_in_stages(index_, problem_.cluster, problem_.energy, is_fixed_to_nodes(), effort,
                            limits_, state, served_if_any());
  }
  const ServedLoads* served_if_any() const { return served_ ? &served_ : nullptr; }

  OptimizedPlacement measured(const PlacementObjective& objective,
                              const ReplicaState& state) const {
    return measure_state(index_, bounds_, sets_.num_tokens, problem_.cluster, objective, state);
  }

  // False where everything that is minimized has reached its bound, for example because every rank
  // holds every expert.
  bool can_improve(const OptimizedPlacement& met) const {
    const bool has_least_copies = met.copy_cost <= met.copy_cost_bound * (1 + kRounding);
    const bool is_balanced = problem_.energy.imbalance_scale == 0 ||
                             met.imbalance <= met.imbalance_bound * (1 + kRounding);
    return !(met.meets_bounds && has_least_copies && is_balanced);
  }

  // Measured, and judged by the loads of served_ if there is one.
  OptimizedPlacement judged(const PlacementObjective& objective, const ReplicaState& state) const {
    OptimizedPlacement met = measured(objective, state);
    if (!served_ || index_is_empty()) return met;
    std::vector<double> loads;
    if (has_replicas(met.placement)) loads = served_(met.placement);
    const double imbalance =
        loads.empty() ? met.imbalance : std::ranges::max(loads) / problem_.energy.mean_load;
    set_imbalance(imbalance, objective, met);
    return met;
  }

  // Anneals on at low temperatures, with the bound judged by the loads of served_ if there is one.
  ReplicaState annealed_on(ReplicaState found, int num_rounds) {
    const ReplicaEffort effort{.work = work_of_round() * num_rounds,
                               .seed = seed_,
                               .anneals = num_slots() <= kMostTabledSlots,
                               .start_temperature = 0.006,
                               .later_temperature = 0.006,
                               .end_temperature = 0.002,
                               .num_rounds = num_rounds};
    return search_replicas(index_, problem_.cluster, problem_.energy, is_fixed_to_nodes(), effort,
                           limits_, std::move(found), served_if_any());
  }

  // Of a placement that was judged lately, as it was counted then.
  std::vector<double> loads_of(const ServedLoads& served, const Placement& placement) {
    constexpr std::size_t kMostKnown = 8;
    const auto known = std::ranges::find(served_before_, placement, &Served::first);
    if (known != served_before_.end()) return known->second;
    if (served_before_.size() == kMostKnown) served_before_.erase(served_before_.begin());
    served_before_.emplace_back(placement, checked_loads(served, placement));
    return served_before_.back().second;
  }

  bool index_is_empty() const { return index_.num_choices() == 0; }
  bool has_redundant_slots() const {
    return slots_per_rank_ * problem_.cluster.ep_size() > sets_.num_experts;
  }
  bool is_fixed_to_nodes() const { return options_.num_groups.has_value(); }
  bool has_node_level() const {
    return problem_.cluster.num_nodes > 1 && problem_.energy.node_cost > 0;
  }

  void fix_groups() {
    const std::int32_t num_groups = *options_.num_groups;
    const Cluster& cluster = problem_.cluster;
    C2R_REQUIRE(num_groups >= 1 && sets_.num_experts % num_groups == 0 &&
                    num_groups % cluster.num_nodes == 0 &&
                    sets_.num_experts % cluster.ep_size() == 0,
                kInvalidArgument,
                "{} experts in {} groups cannot keep each group in one of {} nodes of {} ranks",
                sets_.num_experts, num_groups, cluster.num_nodes, cluster.ranks_per_node);
    for (std::int32_t rank = 0; rank < cluster.ep_size(); ++rank) {
      at(problem_.domain_of_rank, rank) = cluster.node_of(RankId{rank});
    }
  }

  // Caps the work, so that an infinite effort fits an integer: 10^15 takes longer than a month.
  std::int64_t effort_times(double work) const {
    constexpr double kEndless = 1e15;
    return static_cast<std::int64_t>(std::min(effort_ * work, kEndless));
  }
  // At most `work`; a small problem needs no more than 2000 tries of every exchange of two slots.
  std::int64_t work_for(double work, std::int32_t num_slots) const {
    const double slots = num_slots, sets_per_slot = num_set_choices() / slots;
    return effort_times(std::min(work, 2000 * slots * slots * (1 + 2 * sets_per_slot)));
  }
  // More experts need more work, but no more than 4 times as much (measured). The search over
  // columns needs a start only, hence less; so does that of replicas.
  std::int64_t partition_work() const {
    const double work = has_redundant_slots() ? 2e6 : 7e6;
    const double growth =
        has_redundant_slots() ? 1.0 : std::clamp(problem_.num_items / 32.0, 1.0, 4.0);
    return work_for(takes_columns() ? 1e6 : growth * work, problem_.num_items);
  }
  std::int64_t replica_work() const {
    const auto num_slots = static_cast<std::int32_t>(this->num_slots());
    return work_for((combines() ? num_starts() : 1) * kWorkOfSlot * num_slots, num_slots);
  }
  // Of annealed_on(): four rounds take half as much as the annealing before.
  std::int64_t work_of_round() const {
    return replica_work() / 8 + effort_times(num_set_choices() / 2);
  }
  std::int64_t slot_work() const { return effort_times(2e6 + 2 * num_set_choices()); }
  bool takes_columns() const {
    return index_.num_scenarios() == 1 && !has_redundant_slots() && sets_.num_experts <= 64 &&
           !has_node_level() && !is_fixed_to_nodes() && problem_.energy.imbalance_scale == 0 &&
           problem_.energy.copy_scale == 1 &&
           num_columns(sets_.num_experts, slots_per_rank_) <= options_.max_columns;
  }
  double num_set_choices() const { return static_cast<double>(index_.num_set_choices()); }

  // Tries nodes first and all ranks at once, where there are nodes; the better one is returned.
  std::vector<std::int32_t> best_partition(const std::vector<std::int32_t>& start) {
    const bool tries_both = has_node_level() && !is_fixed_to_nodes();
    const std::int64_t work = partition_work() / (tries_both ? 2 : 1);
    auto jointly = annealed(problem_, work, start);
    if (!tries_both) return jointly;
    auto split = nodes_first(start, work);
    return partition_quality(problem_, split) < partition_quality(problem_, jointly) ? split
                                                                                     : jointly;
  }

  std::vector<std::int32_t> nodes_first(const std::vector<std::int32_t>& start, std::int64_t work) {
    PartitionProblem across = problem_;
    across.energy.rank_cost = 0;
    const auto rank_of = annealed(across, work / 2, start);
    PartitionProblem within = problem_;
    for (std::int32_t rank = 0; rank < within.cluster.ep_size(); ++rank) {
      at(within.domain_of_rank, rank) = within.cluster.node_of(RankId{rank});
    }
    return annealed(within, work / 2, rank_of);
  }

  // Many slots are annealed on tokens later (slot_search.h): here pair counts suffice.
  std::vector<std::int32_t> annealed(const PartitionProblem& problem, std::int64_t work,
                                     const std::vector<std::int32_t>& start) {
    if (!has_too_many_slots()) return stages_.anneal(problem, work, seed_, start);
    const std::int64_t pairs_work = effort_times(std::max(7.5e5, 3e3 * problem.num_items));
    return stages_.anneal_on_pairs(problem, pairs_work, seed_, start);
  }

  std::vector<std::int32_t> finish_by_columns(std::vector<std::int32_t> rank_of) {
    ColumnResult result = search_columns({.index = &index_,
                                          .ep_size = problem_.cluster.ep_size(),
                                          .max_load = problem_.energy.max_load},
                                         limits_, std::move(rank_of));
    is_proved_ = result.is_proved;
    is_infeasible_ = is_proved_ && std::isinf(result.bound);
    if (std::isfinite(result.bound)) {
      columns_bound_ =
          problem_.energy.rank_cost * result.bound / static_cast<double>(sets_.num_tokens);
    }
    return result.rank_of;
  }

  Placement filled(const std::vector<std::int32_t>& rank_of) const {
    std::vector<std::vector<std::int32_t>> experts(std::size_t(problem_.cluster.ep_size()));
    for (std::int32_t e = 0; e < sets_.num_experts; ++e) {
      at(experts, at(rank_of, e)).push_back(e);
    }
    return fill_with_replicas(index_, problem_.cluster, problem_.energy, is_fixed_to_nodes(),
                              slots_per_rank_, std::move(experts));
  }

  const TokenSets& sets_;
  const OptimizeOptions& options_;
  const SearchLimits& limits_;
  SetIndex index_;
  CopyBounds bounds_;
  std::int32_t slots_per_rank_ = 0;
  PartitionProblem problem_;
  PartitionStages stages_;
  double effort_ = 1;  // of this round
  int num_seeds_ = 0;
  std::uint64_t seed_ = 0;  // of this round
  using Served = std::pair<Placement, std::vector<double>>;
  ServedLoads served_;                 // may be empty
  std::vector<Served> served_before_;  // the last of them
  bool is_proved_ = false, is_infeasible_ = false;
  std::optional<double> columns_bound_;  // of the copy cost per token
};

}  // namespace

OptimizedPlacement search_layer(const TokenSets& sets, const Cluster& cluster,
                                const PlacementObjective& objective, const OptimizeOptions& options,
                                const SearchLimits& limits, const ServedLoads& served) {
  return LayerSearch(sets, cluster, objective, options, limits, served).run(objective);
}

}  // namespace c2r
