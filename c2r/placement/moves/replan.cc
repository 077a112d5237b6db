// Exchanges slots of running placements, the best first, and shares the moves among layers.
#include "c2r/placement/moves/replan.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>
#include <optional>
#include <utility>

#include "c2r/core/at.h"
#include "c2r/core/error.h"
#include "c2r/core/parallel.h"
#include "c2r/placement/moves/relabel.h"
#include "c2r/placement/search/measure_state.h"
#include "c2r/placement/search/partition_level.h"
#include "c2r/placement/search/replicas/replica_state.h"
#include "c2r/placement/search/replicas/slot_search.h"

namespace c2r {
namespace {

SetIndex served_index(const TokenSets& sets, const Cluster& cluster, const Placement& running) {
  const SetIndex index(sets);
  ReplicaState state(index, cluster, running, /*is_fixed_to_nodes=*/false);
  state.settle_loads();
  return SetIndex(served_slots(index, state));
}

std::vector<std::int32_t> ranks_of_slots(const Placement& placement) {
  std::vector<std::int32_t> ranks(placement.slots.all().size());
  for (std::size_t slot = 0; slot < ranks.size(); ++slot) {
    ranks[slot] = static_cast<std::int32_t>(slot) / placement.slots_per_rank();
  }
  return ranks;
}

std::vector<std::int32_t> nodes_of_slots(const Placement& placement, const Cluster& cluster) {
  auto nodes = ranks_of_slots(placement);
  for (std::int32_t& node : nodes) node = cluster.node_of(RankId{node});
  return nodes;
}

}  // namespace

// Slots are the items; an item keeps its expert and its tokens, and changes its rank.
struct RunningLayer::State {
  State(const TokenSets& sets, const Cluster& of, const PlacementObjective& objective,
        const Placement& placement, bool is_fixed)
      : cluster(of),
        running(placement),
        is_fixed_to_nodes(is_fixed),
        served(served_index(sets, of, placement)),
        energy(energy_for(served, sets.num_tokens, of, objective)),
        ranks(served, ranks_of_slots(placement), of.ep_size()),
        loads(std::size_t(of.ep_size())),
        items_of(std::size_t(placement.num_experts)) {
    if (energy.node_cost > 0) nodes.emplace(served, nodes_of_slots(placement, of), of.num_nodes);
    const auto slots = placement.slots.all();
    for (std::size_t item = 0; item < slots.size(); ++item) {
      at(items_of, slots[item]).push_back(std::int32_t(item));
      at(loads, ranks.group_of(std::int32_t(item))) += served.load(std::int32_t(item));
    }
  }

  Cluster cluster;
  Placement running;
  bool is_fixed_to_nodes;
  SetIndex served;  // token sets of slots
  SearchEnergy energy;
  PartitionLevel ranks;
  std::optional<PartitionLevel> nodes;              // where copies between nodes cost
  std::vector<std::int64_t> loads;                  // [ep_size]
  std::vector<std::vector<std::int32_t>> items_of;  // the slots of each expert. [num_experts]
};

namespace {

// One descent from a running placement, on copies of its tables.
template <class State>
class Descent {
 public:
  explicit Descent(const State& state)
      : state_(state),
        ranks_(state.ranks),
        nodes_(state.nodes),
        loads_(state.loads),
        holds_(state.running.ep_size(), state.running.num_experts) {
    const auto slots = state.running.slots.all();
    for (std::size_t item = 0; item < slots.size(); ++item) {
      holds_(ranks_.group_of(std::int32_t(item)), std::int64_t(slots[item])) = 1;
    }
  }

  double energy() const { return energy_of(cost(0, 0), loads_); }

  // @returns the exchange after which the energy is the least, if that is below the present one
  std::optional<ReplanStep> best_step() {
    find_largest();
    ReplanStep best{.energy = energy()};
    const double start = best.energy;
    const auto num_items = std::int32_t(state_.running.slots.all().size());
    for (std::int32_t a = 0; a < num_items; ++a) {
      for (std::int32_t b = a + 1; b < num_items; ++b) {
        if (!is_allowed(a, b)) continue;
        const double met = energy_after(a, b);
        if (met < best.energy) best = {.slot_a = a, .slot_b = b, .energy = met};
      }
    }
    if (best.energy >= start - kRounding * std::abs(start)) return std::nullopt;
    apply(best.slot_a, best.slot_b);
    best.num_moved = num_moved();
    return best;
  }

 private:
  double cost(std::int64_t rank_delta, std::int64_t node_delta) const {
    return state_.energy.cost(ranks_.cost() + rank_delta,
                              (nodes_ ? nodes_->cost() : 0) + node_delta);
  }
  double energy_of(double cost, std::span<const std::int64_t> loads) const {
    return state_.energy.violation(cost, loads) + state_.energy.value(cost, loads);
  }
  std::int32_t node_of(std::int32_t item) const {
    return state_.cluster.node_of(RankId{ranks_.group_of(item)});
  }

  // What energy_of() is after the exchange, in constant time: only two loads change.
  double energy_after(std::int32_t a, std::int32_t b) const {
    const SearchEnergy& energy = state_.energy;
    const bool changes_node = nodes_ && node_of(a) != node_of(b);
    const double after = cost(ranks_.swap_delta(a, b), changes_node ? nodes_->swap_delta(a, b) : 0);
    const std::int64_t shift = state_.served.load(b) - state_.served.load(a);
    const std::int32_t rank_a = ranks_.group_of(a), rank_b = ranks_.group_of(b);
    const std::int64_t load_a = at(loads_, rank_a), load_b = at(loads_, rank_b);
    const double excess = excess_ + excess_of(load_a + shift) - excess_of(load_a) +
                          excess_of(load_b - shift) - excess_of(load_b);
    double met = energy.copy_scale * after + energy.load_penalty * excess +
                 energy.cost_penalty * std::max(0.0, after - energy.max_cost);
    if (energy.imbalance_scale == 0) return met;
    const auto other = std::ranges::find_if(
        largest_, [&](std::int32_t rank) { return rank != rank_a && rank != rank_b; });
    std::int64_t largest = std::max(load_a + shift, load_b - shift);
    if (other != largest_.end()) largest = std::max(largest, at(loads_, *other));
    return met + energy.imbalance_scale * static_cast<double>(largest) / energy.mean_load;
  }

  double excess_of(std::int64_t load) const {
    return std::max(0.0, static_cast<double>(load) - state_.energy.max_load);
  }
  // Before the exchanges of a step are judged.
  void find_largest() {
    excess_ = 0;
    for (const std::int64_t load : loads_) excess_ += excess_of(load);
    std::vector<std::int32_t> ranks(loads_.size());
    std::iota(ranks.begin(), ranks.end(), 0);
    const auto count = std::min<std::size_t>(3, ranks.size());
    std::ranges::partial_sort(ranks, ranks.begin() + std::ptrdiff_t(count), std::greater(),
                              [&](std::int32_t rank) { return at(loads_, rank); });
    largest_.assign(ranks.begin(), ranks.begin() + std::ptrdiff_t(count));
  }

  bool is_allowed(std::int32_t a, std::int32_t b) const {
    if (ranks_.group_of(a) == ranks_.group_of(b)) return false;
    if (state_.is_fixed_to_nodes && node_of(a) != node_of(b)) return false;
    return is_apart(a, b) && is_apart(b, a);
  }

  // Whether `item` may take the place of `other`: no other replica of its expert is on that rank,
  // and its replicas are on no fewer nodes afterwards.
  bool is_apart(std::int32_t item, std::int32_t other) const {
    const std::int32_t from = node_of(item), to = node_of(other);
    bool stays_in_from = false, is_in_to = false;
    for (const std::int32_t replica : at(state_.items_of, expert_of(item))) {
      if (replica == item) continue;
      if (ranks_.group_of(replica) == ranks_.group_of(other)) return false;
      stays_in_from |= node_of(replica) == from;
      is_in_to |= node_of(replica) == to;
    }
    return from == to || stays_in_from || !is_in_to;
  }

  ExpertId expert_of(std::int32_t item) const {
    return state_.running.slots.all()[std::size_t(item)];
  }

  void apply(std::int32_t a, std::int32_t b) {
    const std::int64_t shift = state_.served.load(b) - state_.served.load(a);
    at(loads_, ranks_.group_of(a)) += shift;
    at(loads_, ranks_.group_of(b)) -= shift;
    if (nodes_ && node_of(a) != node_of(b)) nodes_->swap(a, b);
    ranks_.swap(a, b);
  }

  std::int64_t num_moved() const {
    std::int64_t moved = 0;
    for (std::int32_t item = 0; item < std::ssize(state_.running.slots.all()); ++item) {
      moved += 1 - holds_(ranks_.group_of(item), std::int64_t(expert_of(item)));
    }
    return moved;
  }

  const State& state_;
  PartitionLevel ranks_;
  std::optional<PartitionLevel> nodes_;
  std::vector<std::int64_t> loads_;
  Matrix<std::uint8_t> holds_;         // [ep_size, num_experts], in the running placement
  double excess_ = 0;                  // of all loads over the bound
  std::vector<std::int32_t> largest_;  // the three busiest ranks: one of them is in no exchange
};

// Steps of one layer, of which the first `num_made` are made.
struct LayerSteps {
  std::vector<ReplanStep> steps;
  double energy = 0;  // of the running placement
  std::size_t num_made = 0;

  double energy_now() const { return num_made > 0 ? steps[num_made - 1].energy : energy; }
  std::int64_t moved_now() const { return num_made > 0 ? steps[num_made - 1].num_moved : 0; }
};

struct BestSteps {
  std::size_t layer = 0, num_made = 0;
  std::int64_t num_moves = 0;
  double gain_of_move = 0;
};

// @returns the steps of one layer that lower the energy the most for each expert that moves
std::optional<BestSteps> best_steps(std::span<const LayerSteps> layers, std::int64_t moves_left) {
  std::optional<BestSteps> best;
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    const LayerSteps& of = layers[layer];
    for (std::size_t made = of.num_made + 1; made <= of.steps.size(); ++made) {
      const std::int64_t moves = of.steps[made - 1].num_moved - of.moved_now();
      if (moves > moves_left) continue;
      const double gain =
          (of.energy_now() - of.steps[made - 1].energy) / double(std::max<std::int64_t>(moves, 1));
      if (!best || gain > best->gain_of_move) best = BestSteps{layer, made, moves, gain};
    }
  }
  return best;
}

// Items change places; the contents of a slot are those of the item that ends there.
Placement after_steps(const Placement& running, std::span<const ReplanStep> steps) {
  std::vector<std::int32_t> place_of(running.slots.all().size());
  std::iota(place_of.begin(), place_of.end(), 0);
  for (const ReplanStep& step : steps) {
    std::swap(at(place_of, step.slot_a), at(place_of, step.slot_b));
  }
  Placement after = running;
  for (std::size_t item = 0; item < place_of.size(); ++item) {
    after.slots.all()[std::size_t(place_of[item])] = running.slots.all()[item];
  }
  return after;
}

}  // namespace

RunningLayer::RunningLayer(const TokenSets& sets, const Cluster& cluster,
                           const PlacementObjective& objective, const Placement& running,
                           bool is_fixed_to_nodes) {
  check_token_sets(sets);
  check_cluster(cluster);
  check_placement(running);
  C2R_REQUIRE(
      running.num_experts == sets.num_experts && running.ep_size() == cluster.ep_size(),
      kInvalidArgument,
      "the running placement is of {} experts on {} ranks, but the tokens are of {} experts "
      "on a cluster of {} ranks",
      running.num_experts, running.ep_size(), sets.num_experts, cluster.ep_size());
  C2R_REQUIRE(objective.goal != Goal::kTime, kInvalidArgument,
              "a running layer needs an objective of copies or imbalance: linear_objective()");
  state_ = std::make_unique<State>(sets, cluster, objective, running, is_fixed_to_nodes);
}
RunningLayer::RunningLayer(RunningLayer&&) noexcept = default;
RunningLayer& RunningLayer::operator=(RunningLayer&&) noexcept = default;
RunningLayer::~RunningLayer() = default;

const Placement& RunningLayer::running() const {
  return state_->running;
}

const Cluster& RunningLayer::cluster() const {
  return state_->cluster;
}

double RunningLayer::energy() const {
  return Descent<State>(*state_).energy();
}

std::vector<ReplanStep> RunningLayer::steps(std::int64_t max_moves) const {
  Descent<State> descent(*state_);
  std::vector<ReplanStep> steps;
  while (const auto step = descent.best_step()) {
    if (step->num_moved > max_moves) break;
    steps.push_back(*step);
  }
  return steps;
}

std::vector<Placement> replan(std::span<const RunningLayer> layers, std::int64_t max_moves,
                              int num_threads) {
  C2R_REQUIRE(max_moves >= 0, kInvalidArgument, "{} experts may move, but must be at least 0",
              max_moves);
  const auto num_layers = std::ssize(layers);
  const std::int64_t most =
      num_layers > 0 ? std::min(max_moves, 4 * (max_moves / num_layers + 1)) : 0;
  std::vector<LayerSteps> found(layers.size());
  parallel_for(num_layers, num_threads, [&](std::int64_t layer, int) {
    const RunningLayer& running = layers[std::size_t(layer)];
    at(found, layer) = {.steps = running.steps(most), .energy = running.energy()};
  });
  std::int64_t moves_left = max_moves;
  while (const auto next = best_steps(found, moves_left)) {
    found[next->layer].num_made = next->num_made;
    moves_left -= next->num_moves;
  }
  std::vector<Placement> placements;
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    const Placement& running = layers[layer].running();
    const auto after =
        after_steps(running, std::span(found[layer].steps).first(found[layer].num_made));
    placements.push_back(with_fewest_moves(running, after, layers[layer].cluster()));
  }
  return placements;
}

PlacementObjective linear_objective(const PlacementObjective& objective, const Cluster& cluster,
                                    std::int64_t top_k) {
  if (objective.goal != Goal::kTime) return objective;
  C2R_REQUIRE(objective.layer_time && cluster.device_flop_per_s, kInvalidArgument,
              "the goal time needs layer_time and a cluster with device_flop_per_s");
  const CopyFormat& format = objective.layer_time->format;
  const double ranks = cluster.ep_size();
  const Link& link = cluster.num_nodes > 1 && cluster.ranks_per_node == 1 ? cluster.inter_node
                                                                          : cluster.intra_node;
  const double bytes =
      double(format.hidden * (format.dispatch_element_bytes + format.combine_element_bytes));
  // Of one token: a copy leaves its rank with the probability (ranks - 1) / ranks, over one of
  // `ranks` links; its choices are spread over the ranks.
  const double copy_s = bytes * (ranks - 1) / ranks / ranks / link.bandwidth_bytes_per_s;
  const double balanced_s =
      double(top_k) / ranks * objective.layer_time->flop_per_choice / *cluster.device_flop_per_s;
  PlacementObjective linear = objective;
  linear.goal = Goal::kCopies;
  linear.layer_time.reset();
  linear.imbalance_weight = copy_s > 0 ? balanced_s / copy_s : 0;
  return linear;
}

}  // namespace c2r
