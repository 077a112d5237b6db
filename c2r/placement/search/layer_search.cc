// The search for one layer: which steps run, in which order, and how much effort each one gets.
//
// Outline of LayerSearch::run():
//   1. Index the token sets; fix ranks to nodes where groups of experts must stay together.
//   2. Start with contiguous experts. With more groups than nodes, first place groups on nodes, as
//      a problem of its own whose experts are the groups.
//   3. best_partition(): anneal one slot an expert, on tokens or, where tokens are too many
//      (is_large()), on pair counts with a short annealing on tokens after it. On several nodes
//      both ways are tried, nodes first and then ranks, or all at once; the better one stays.
//   4. finish_by_columns(): without redundant slots and where columns are few, find the optimum.
//   5. filled(): give redundant slots to replicas, greedily (replica_fill.h).
//   6. search_replicas(): anneal slots and replicas together (replica_search.h).
//   7. measure_state(): count the result anew, with its bounds.
// Steps 3 and 6 share the effort by partition_work(), pairs_work(), refine_work(), replica_work().
#include "c2r/placement/search/layer_search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "c2r/core/at.h"
#include "c2r/core/error.h"
#include "c2r/placement/search/column_search.h"
#include "c2r/placement/search/copy_bounds.h"
#include "c2r/placement/search/measure_state.h"
#include "c2r/placement/search/partition_level.h"
#include "c2r/placement/search/partition_search.h"
#include "c2r/placement/search/replicas/replica_fill.h"
#include "c2r/placement/search/replicas/replica_search.h"
#include "c2r/placement/search/replicas/replica_state.h"
#include "c2r/placement/search/set_index.h"

namespace c2r {
namespace {

class LayerSearch {
 public:
  LayerSearch(const TokenSets& sets, const Cluster& cluster, const PlacementObjective& objective,
              const OptimizeOptions& options, const SearchLimits& limits)
      : sets_(sets), options_(options), limits_(limits), index_(sets), bounds_(index_) {
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
  }

  OptimizedPlacement run(const PlacementObjective& objective) {
    OptimizedPlacement result = measured(objective, search(objective));
    for (std::int64_t rank = 0; rank < result.placement.ep_size(); ++rank) {
      std::ranges::sort(result.placement.slots.row(rank));
    }
    // The columns are those within the bound: what misses it may cost less.
    if (result.meets_bounds && columns_bound_ && *columns_bound_ > result.copy_cost_bound) {
      result.value_bound += *columns_bound_ - result.copy_cost_bound;  // takes_columns(): kCopies
      result.copy_cost_bound = *columns_bound_;
    }
    result.is_proved_optimal |= is_proved_ && result.meets_bounds;
    result.is_cut_short = limits_.reached() && !result.is_proved_optimal;
    return result;
  }

 private:
  // Returns a state whose loads are settled.
  ReplicaState search(const PlacementObjective& objective) {
    std::vector<std::int32_t> rank_of = first_assignment();
    if (!index_is_empty()) rank_of = best_partition(rank_of);
    if (!index_is_empty() && takes_columns() && !limits_.reached())
      rank_of = finish_by_columns(std::move(rank_of));
    ReplicaState state(index_, problem_.cluster, filled(rank_of), is_fixed_to_nodes());
    if (!has_redundant_slots() || index_is_empty() || !can_improve(measured(objective, state))) {
      return state;
    }
    return search_replicas(index_, problem_.cluster, problem_.energy, is_fixed_to_nodes(),
                           {.work = replica_work(), .seed = options_.seed}, limits_,
                           std::move(state));
  }

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

  // Contiguous experts; with more groups than nodes, groups that are chosen together share a node.
  std::vector<std::int32_t> first_assignment() const {
    const std::int32_t base = problem_.num_items / problem_.cluster.ep_size();
    std::vector<std::int32_t> rank_of(std::size_t(problem_.num_items));
    for (std::int32_t item = 0; item < problem_.num_items; ++item) {
      at(rank_of, item) = item / base;
    }
    if (!options_.num_groups || *options_.num_groups == problem_.cluster.num_nodes) return rank_of;
    const std::int32_t group_size = sets_.num_experts / *options_.num_groups;
    std::vector<std::int32_t> next_item(std::size_t(problem_.cluster.num_nodes));
    const auto node_of_group = nodes_of_groups(group_size);
    const std::int32_t node_items = base * problem_.cluster.ranks_per_node;
    for (std::int32_t e = 0; e < sets_.num_experts; ++e) {
      const std::int32_t node = at(node_of_group, e / group_size);
      const std::int32_t place = node * node_items + at(next_item, node)++;
      at(rank_of, e) = place / base;
    }
    return rank_of;
  }

  // Places the groups: they are the experts of a problem whose ranks are the nodes. It has few
  // distinct sets.
  std::vector<std::int32_t> nodes_of_groups(std::int32_t group_size) const {
    const std::int32_t num_groups = *options_.num_groups;
    std::map<std::vector<ExpertId>, std::int64_t> tokens_of;
    std::vector<ExpertId> key;
    for (std::int64_t set = 0; set < sets_.num_sets(); ++set) {
      key.clear();
      for (const std::uint16_t e : index_.experts(set)) {
        const ExpertId group{e / group_size};
        if (key.empty() || key.back() != group) key.push_back(group);
      }
      tokens_of[key] += at(sets_.multiplicity, set);
    }
    TokenSets groups{.num_experts = num_groups,
                     .num_tokens = sets_.num_tokens,
                     .experts = {std::ssize(tokens_of), sets_.top_k(), kNoExpert}};
    for (const auto& [experts, num_tokens] : tokens_of) {
      std::ranges::copy(experts, groups.experts.row(std::ssize(groups.multiplicity)).begin());
      groups.multiplicity.push_back(num_tokens);
    }
    const Cluster nodes_as_ranks{.num_nodes = 1, .ranks_per_node = problem_.cluster.num_nodes};
    const Placement placement =
        search_layer(groups, nodes_as_ranks, {}, {.seed = options_.seed, .effort = options_.effort},
                     limits_)
            .placement;
    std::vector<std::int32_t> nodes;
    for (const RankId node : rank_of(placement)) nodes.push_back(static_cast<std::int32_t>(node));
    return nodes;
  }

  // Caps the work, so that an infinite effort fits an integer: 10^15 takes longer than a month.
  std::int64_t effort_times(double work) const {
    constexpr double kEndless = 1e15;
    return static_cast<std::int64_t>(std::min(options_.effort * work, kEndless));
  }
  // At most `work`; a small problem needs no more than 2000 tries of every exchange of two slots.
  std::int64_t work_for(double work, std::int32_t num_slots) const {
    const double slots = num_slots, sets_per_slot = num_set_choices() / slots;
    return effort_times(std::min(work, 2000 * slots * slots * (1 + 2 * sets_per_slot)));
  }
  // Four times as much improves gpt-oss-20b by 0.1 % (measured). The search over columns needs a
  // start only, hence less.
  std::int64_t partition_work() const {
    return work_for(takes_columns() ? 1e6 : 7e6, problem_.num_items);
  }
  // Annealing from an arbitrary start needs some 50 accepted swaps of each item, and each swap
  // visits the sets of its items.
  bool is_large() const {
    return 50.0 * problem_.num_items * (1 + 4 * num_set_choices() / index_.num_experts()) > 7e6;
  }
  // The work of a large problem on pair counts, and on tokens after that.
  std::int64_t pairs_work() const {
    return effort_times(std::max(7.5e5, 3e3 * problem_.num_items));
  }
  std::int64_t refine_work() const { return effort_times(1e6 + 2 * num_set_choices()); }
  std::int64_t replica_work() const {
    const std::int32_t num_slots = slots_per_rank_ * problem_.cluster.ep_size();
    return work_for(is_large() ? 2e6 + 2 * num_set_choices() : 4e7, num_slots);
  }
  bool takes_columns() const {
    return !has_redundant_slots() && sets_.num_experts <= 64 && !has_node_level() &&
           !is_fixed_to_nodes() && problem_.energy.imbalance_scale == 0 &&
           problem_.energy.copy_scale == 1 &&
           num_columns(sets_.num_experts, slots_per_rank_) <= options_.max_columns;
  }
  double num_set_choices() const {
    double count = 0;
    for (std::int64_t set = 0; set < index_.num_sets(); ++set) {
      count += static_cast<double>(index_.experts(set).size());
    }
    return count;
  }

  static Quality quality(const PartitionProblem& problem,
                         const std::vector<std::int32_t>& rank_of) {
    const PartitionCost cost = partition_cost(problem, rank_of);
    const double total = problem.energy.cost(cost.rank_copies, cost.node_copies);
    return problem.energy.quality(total, cost.loads);
  }

  // Tries nodes first and all ranks at once, where there are nodes; the better one is returned.
  std::vector<std::int32_t> best_partition(const std::vector<std::int32_t>& start) {
    const bool needs_seed = is_large();
    if (needs_seed) pairs_ = pair_counts(index_, problem_.num_items);
    const bool tries_both = has_node_level() && !is_fixed_to_nodes();
    const std::int64_t work = partition_work() / (tries_both && !needs_seed ? 2 : 1);

    auto jointly = needs_seed ? seeded(problem_, start) : annealed(problem_, start, work);
    if (tries_both) {
      auto split = nodes_first(start, needs_seed, work);
      if (quality(problem_, split) < quality(problem_, jointly)) jointly = std::move(split);
    }
    if (!needs_seed) return jointly;
    // With redundant slots, slot_search.h looks at tokens later.
    auto by_tokens = has_redundant_slots() ? std::move(jointly) : refined(std::move(jointly));
    // By tokens, the start may be better than what pair counts led to.
    return quality(problem_, start) < quality(problem_, by_tokens) ? start : by_tokens;
  }

  std::vector<std::int32_t> nodes_first(const std::vector<std::int32_t>& start, bool needs_seed,
                                        std::int64_t work) {
    PartitionProblem across = problem_;
    across.energy.rank_cost = 0;
    auto rank_of = needs_seed ? seeded(across, start) : annealed(across, start, work / 2);
    PartitionProblem within = problem_;
    for (std::int32_t rank = 0; rank < within.cluster.ep_size(); ++rank) {
      at(within.domain_of_rank, rank) = within.cluster.node_of(RankId{rank});
    }
    return needs_seed ? seeded(within, rank_of) : annealed(within, rank_of, work / 2);
  }

  std::vector<std::int32_t> seeded(const PartitionProblem& problem,
                                   const std::vector<std::int32_t>& start) const {
    const PartitionEffort effort{.work = pairs_work(), .seed = options_.seed};
    return anneal_pairs(problem, pairs_, effort, limits_, start);
  }

  // Anneals on tokens from a low temperature, so that the start by pair counts is not destroyed.
  std::vector<std::int32_t> refined(std::vector<std::int32_t> rank_of) const {
    const PartitionEffort effort{.work = refine_work(),
                                 .start_temperature = 0.004,
                                 .end_temperature = 0.001,
                                 .seed = options_.seed};
    return anneal_partition(problem_, effort, limits_, std::move(rank_of));
  }

  std::vector<std::int32_t> annealed(const PartitionProblem& problem,
                                     const std::vector<std::int32_t>& start,
                                     std::int64_t work) const {
    PartitionEffort effort{.work = work, .start_penalty = 0.1, .seed = options_.seed};
    auto rank_of = anneal_partition(problem, effort, limits_, start);
    if (quality(problem, rank_of).violation == 0) return rank_of;
    effort.start_penalty = 1;  // the bound is tight: the full penalty from the beginning
    auto tight = anneal_partition(problem, effort, limits_, start);
    return quality(problem, tight) < quality(problem, rank_of) ? tight : rank_of;
  }

  std::vector<std::int32_t> finish_by_columns(std::vector<std::int32_t> rank_of) {
    ColumnResult result = search_columns({.index = &index_,
                                          .ep_size = problem_.cluster.ep_size(),
                                          .max_load = problem_.energy.max_load},
                                         limits_, std::move(rank_of));
    is_proved_ = result.is_proved;
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
  Matrix<std::int64_t> pairs_;
  bool is_proved_ = false;
  std::optional<double> columns_bound_;  // of the copy cost per token
};

}  // namespace

OptimizedPlacement search_layer(const TokenSets& sets, const Cluster& cluster,
                                const PlacementObjective& objective, const OptimizeOptions& options,
                                const SearchLimits& limits) {
  return LayerSearch(sets, cluster, objective, options, limits).run(objective);
}

}  // namespace c2r
