// Simulated annealing over swaps of two items, on exact copies or on pair counts.
//
// Outline of Annealer::run(): until the work is done or a limit is reached,
//   1. cool: the temperature falls geometrically and the load penalty rises to its full height;
//   2. draw two items a and b on different ranks of one domain, so that no rank would get two
//      replicas of an expert;
//   3. judge the swap in constant time. With A and B the ranks of a and b,
//        change = copy_scale x (rank_cost x delta_ranks(a, b) + node_cost x delta_nodes(a, b))
//               + cost_penalty x (growth of max(0, cost - max_cost))
//               + load_penalty x (growth of excess(A) + excess(B))
//               + imbalance_scale x (growth of the largest load) / mean_load
//      where excess(r) = max(0, load(r) - max_load), load(A) grows by load(b) - load(a), load(B)
//      falls by as much, and both deltas are swap_delta() of partition_level.h. With several
//      scenarios the excess is summed and the largest load taken over the loads in all of them;
//   4. make the swap if change <= 0, else with the probability exp(-change / temperature);
//   5. keep the assignment if its Quality is the best so far.
#include "c2r/placement/search/partition_search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <random>
#include <span>
#include <utility>

#include "c2r/core/at.h"
#include "c2r/core/error.h"
#include "c2r/core/matrix.h"
#include "c2r/placement/search/fast_random.h"
#include "c2r/placement/search/partition_level.h"

namespace c2r {
namespace {

std::vector<std::int32_t> nodes_of(const Cluster& cluster, std::span<const std::int32_t> rank_of) {
  std::vector<std::int32_t> nodes;
  for (const std::int32_t rank : rank_of) nodes.push_back(cluster.node_of(RankId{rank}));
  return nodes;
}

// `Level` is PartitionLevel or PairLevel.
template <class Level>
class Annealer {
 public:
  Annealer(const PartitionProblem& problem, Level ranks, std::optional<Level> nodes)
      : problem_(problem),
        ranks_(std::move(ranks)),
        nodes_(std::move(nodes)),
        ep_size_(static_cast<std::size_t>(problem.cluster.ep_size())),
        num_scenarios_(static_cast<std::size_t>(problem.index->num_scenarios())),
        item_loads_(static_cast<std::size_t>(problem.num_items) * num_scenarios_),
        loads_(num_scenarios_ * ep_size_) {
    for (std::int32_t e = 0; e < problem.index->num_experts(); ++e) {
      std::ranges::copy(problem.index->scenario_loads(e), &item_loads_[load_at(e)]);
      add_loads(e, 1, std::size_t(ranks_.group_of(e)));
    }
    cost_ = exact_cost();
    keep_if_best();
  }

  std::vector<std::int32_t> run(const PartitionEffort& effort, const SearchLimits& limits) {
    FastRandom random(effort.seed);
    const double scale = static_cast<double>(problem_.index->num_choices()) /
                         static_cast<double>(problem_.index->num_experts()) *
                         std::max(problem_.energy.rank_cost, problem_.energy.node_cost);
    const double fall = std::log(effort.end_temperature / effort.start_temperature);
    double temperature = 0;
    std::int64_t next_check = 0;
    for (std::int64_t work = 0; work < effort.work; ++work) {
      if (work >= next_check) {
        if (limits.reached()) break;
        const double progress = static_cast<double>(work) / static_cast<double>(effort.work);
        temperature = scale * effort.start_temperature * std::exp(fall * progress);
        load_penalty_ = problem_.energy.load_penalty * std::pow(effort.start_penalty, 1 - progress);
        // This is often enough to cool smoothly and to stop within a millisecond.
        next_check = work + std::clamp<std::int64_t>(effort.work / 2048, 1, 65536);
      }
      const std::int32_t a = random.below(problem_.num_items);
      const std::int32_t b = random.below(problem_.num_items);
      const double change = swap_change(a, b);
      if (change > 0 && change >= -temperature * std::log(random.unit())) continue;
      work += 2 * apply(a, b);
    }
    return best_;
  }

  // The assignment that the search has reached.
  std::vector<std::int32_t> rank_of() const {
    std::vector<std::int32_t> ranks(static_cast<std::size_t>(problem_.num_items));
    for (std::int32_t item = 0; item < problem_.num_items; ++item) {
      at(ranks, item) = ranks_.group_of(item);
    }
    return ranks;
  }
  bool tracks(const PartitionCost& counted) const {
    return ranks_.cost() == counted.rank_copies && loads_ == counted.loads &&
           (!nodes_ || nodes_->cost() == counted.node_copies);
  }

 private:
  // Of an item in the first scenario, in item_loads_.
  std::size_t load_at(std::int32_t item) const {
    return static_cast<std::size_t>(item) * num_scenarios_;
  }
  void add_loads(std::int32_t item, std::int64_t sign, std::size_t rank) {
    const std::size_t from = load_at(item);
    for (std::size_t s = 0; s < num_scenarios_; ++s) {
      loads_[s * ep_size_ + rank] += sign * item_loads_[from + s];
    }
  }
  double exact_cost() const {
    return problem_.energy.cost(ranks_.cost(), nodes_ ? nodes_->cost() : 0);
  }

  bool is_allowed(std::int32_t a, std::int32_t b) const {
    const std::int32_t rank_a = ranks_.group_of(a), rank_b = ranks_.group_of(b);
    const bool are_redundant = std::min(a, b) >= problem_.index->num_experts();
    return !are_redundant && rank_a != rank_b &&
           at(problem_.domain_of_rank, rank_a) == at(problem_.domain_of_rank, rank_b) &&
           (problem_.other_replicas.empty() || (is_apart(a, rank_b) && is_apart(b, rank_a)));
  }

  // Whether `item` may move to `rank`: no other replica of its expert is there, and all replicas of
  // the expert are on no fewer nodes afterwards.
  bool is_apart(std::int32_t item, std::int32_t rank) const {
    const Cluster& cluster = problem_.cluster;
    const std::int32_t from = cluster.node_of(RankId{ranks_.group_of(item)});
    const std::int32_t to = cluster.node_of(RankId{rank});
    bool stays_in_from = false, is_in_to = false;
    for (const std::int32_t replica : at(problem_.other_replicas, item)) {
      const std::int32_t other = ranks_.group_of(replica), node = cluster.node_of(RankId{other});
      if (other == rank) return false;
      stays_in_from |= node == from;
      is_in_to |= node == to;
    }
    return from == to || stays_in_from || !is_in_to;
  }

  // The change of the energy and its penalties, as in the outline. Infinite if the swap is not
  // allowed.
  double swap_change(std::int32_t a, std::int32_t b) {
    if (!is_allowed(a, b)) return std::numeric_limits<double>::infinity();
    const auto rank_a = std::size_t(ranks_.group_of(a)), rank_b = std::size_t(ranks_.group_of(b));
    const SearchEnergy& energy = problem_.energy;
    const bool changes_node = nodes_ && nodes_->group_of(a) != nodes_->group_of(b);
    const double step =
        energy.cost(ranks_.swap_delta(a, b), changes_node ? nodes_->swap_delta(a, b) : 0);
    double change = energy.copy_scale * step;
    if (energy.max_cost < std::numeric_limits<double>::infinity()) {
      change += energy.cost_penalty * (std::max(0.0, cost_ + step - energy.max_cost) -
                                       std::max(0.0, cost_ - energy.max_cost));
    }
    const auto excess = [&](std::int64_t rank_load) {
      return std::max(0.0, static_cast<double>(rank_load) - energy.max_load);
    };
    const std::size_t at_a = load_at(a), at_b = load_at(b);
    for (std::size_t s = 0; s < num_scenarios_; ++s) {
      const std::int64_t shift = item_loads_[at_b + s] - item_loads_[at_a + s];
      const std::int64_t load_a = loads_[s * ep_size_ + rank_a];
      const std::int64_t load_b = loads_[s * ep_size_ + rank_b];
      change += load_penalty_ *
                (excess(load_a + shift) - excess(load_a) + excess(load_b - shift) - excess(load_b));
    }
    if (energy.imbalance_scale > 0) {
      const std::int64_t before = std::ranges::max(loads_);
      exchange_loads(a, b, rank_a, rank_b);
      change += energy.imbalance_scale * static_cast<double>(std::ranges::max(loads_) - before) /
                energy.mean_load;
      exchange_loads(b, a, rank_a, rank_b);
    }
    return change;
  }

  // `a` leaves rank_a for rank_b, and `b` the other way round.
  void exchange_loads(std::int32_t a, std::int32_t b, std::size_t rank_a, std::size_t rank_b) {
    add_loads(a, -1, rank_a), add_loads(b, 1, rank_a);
    add_loads(b, -1, rank_b), add_loads(a, 1, rank_b);
  }

  std::int64_t apply(std::int32_t a, std::int32_t b) {
    const auto rank_a = std::size_t(ranks_.group_of(a)), rank_b = std::size_t(ranks_.group_of(b));
    std::int64_t work = ranks_.swap_work(a, b);
    exchange_loads(a, b, rank_a, rank_b);
    ranks_.swap(a, b);
    if (nodes_ && nodes_->group_of(a) != nodes_->group_of(b)) {
      work += nodes_->swap_work(a, b);
      nodes_->swap(a, b);
    }
    cost_ = exact_cost();
    keep_if_best();
    return work;
  }

  void keep_if_best() {
    const Quality met = problem_.energy.quality(cost_, loads_);
    if (!best_.empty() && met >= best_quality_) return;
    best_quality_ = met;
    best_ = rank_of();
  }

  const PartitionProblem& problem_;
  Level ranks_;
  std::optional<Level> nodes_;  // only if copies between nodes have a cost
  std::size_t ep_size_, num_scenarios_;
  std::vector<std::int64_t> item_loads_;  // [num_items, num_scenarios]; redundant items have none
  std::vector<std::int64_t> loads_;       // [num_scenarios, ep_size]
  double cost_ = 0;
  double load_penalty_ = 0;
  Quality best_quality_;
  std::vector<std::int32_t> best_;
};

bool has_node_level(const PartitionProblem& problem) {
  return problem.cluster.num_nodes > 1 && problem.energy.node_cost > 0;
}

}  // namespace

std::vector<std::int32_t> anneal_partition(const PartitionProblem& problem,
                                           const PartitionEffort& effort,
                                           const SearchLimits& limits,
                                           std::vector<std::int32_t> rank_of) {
  std::optional<PartitionLevel> nodes;
  if (has_node_level(problem)) {
    nodes.emplace(*problem.index, nodes_of(problem.cluster, rank_of), problem.cluster.num_nodes);
  }
  PartitionLevel ranks(*problem.index, rank_of, problem.cluster.ep_size());
  Annealer<PartitionLevel> annealer(problem, std::move(ranks), std::move(nodes));
  auto best = annealer.run(effort, limits);
  C2R_ASSERT(annealer.tracks(partition_cost(problem, annealer.rank_of())));
  return best;
}

std::vector<std::int32_t> anneal_pairs(const PartitionProblem& problem,
                                       const Matrix<std::int64_t>& pairs,
                                       const PartitionEffort& effort, const SearchLimits& limits,
                                       std::vector<std::int32_t> rank_of) {
  std::optional<PairLevel> nodes;
  if (has_node_level(problem)) {
    nodes.emplace(pairs, nodes_of(problem.cluster, rank_of), problem.cluster.num_nodes);
  }
  PairLevel ranks(pairs, rank_of, problem.cluster.ep_size());
  return Annealer<PairLevel>(problem, std::move(ranks), std::move(nodes)).run(effort, limits);
}

PartitionCost partition_cost(const PartitionProblem& problem,
                             const std::vector<std::int32_t>& rank_of) {
  const SetIndex& index = *problem.index;
  const std::int32_t ep_size = problem.cluster.ep_size();
  const auto node_of = nodes_of(problem.cluster, rank_of);
  const std::int32_t num_scenarios = index.num_scenarios();
  PartitionCost cost{.loads = std::vector<std::int64_t>(std::size_t(num_scenarios * ep_size))};
  std::vector<std::int64_t> last_of_rank(static_cast<std::size_t>(ep_size), -1);
  std::vector<std::int64_t> last_of_node(static_cast<std::size_t>(problem.cluster.num_nodes), -1);
  for (std::int32_t e = 0; e < index.num_experts(); ++e) {
    for (std::int32_t scenario = 0; scenario < num_scenarios; ++scenario) {
      at(cost.loads, scenario * ep_size + at(rank_of, e)) += at(index.scenario_loads(e), scenario);
    }
  }
  for (std::int64_t set = 0; set < index.num_sets(); ++set) {
    for (const std::uint16_t e : index.experts(set)) {
      const auto rank = std::size_t(rank_of[e]), node = std::size_t(node_of[e]);
      if (std::exchange(last_of_rank[rank], set) != set) cost.rank_copies += index.weight(set);
      if (std::exchange(last_of_node[node], set) != set) cost.node_copies += index.weight(set);
    }
  }
  return cost;
}

}  // namespace c2r
