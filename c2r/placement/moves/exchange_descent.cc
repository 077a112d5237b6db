// Keeps the best exchange of each pair of ranks, and makes the best of all.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "c2r/core/at.h"
#include "c2r/placement/moves/exchange_descent_internal.h"
#include "c2r/placement/search/measure_state.h"
#include "c2r/placement/search/replicas/replica_state.h"
#include "c2r/placement/search/replicas/slot_search.h"

namespace c2r::internal {
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

RunningState::RunningState(const TokenSets& sets, const Cluster& of,
                           const PlacementObjective& objective, const Placement& placement,
                           bool is_fixed)
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

ExchangeDescent::ExchangeDescent(const RunningState& state)
    : state_(state),
      ranks_(state.ranks),
      nodes_(state.nodes),
      loads_(state.loads),
      held_(state.running.ep_size(), state.running.num_experts),
      items_on_(loads_.size()),
      known_(state.running.ep_size(), state.running.ep_size()) {
  const auto slots = state.running.slots.all();
  for (std::size_t item = 0; item < slots.size(); ++item) {
    const std::int32_t rank = ranks_.group_of(std::int32_t(item));
    held_(rank, std::int64_t(slots[item])) = 1;
    at(items_on_, rank).push_back(std::int32_t(item));
  }
  holds_ = held_;
}

double ExchangeDescent::energy() const {
  return state_.energy.violation(copy_cost(), loads_) + state_.energy.value(copy_cost(), loads_);
}

std::optional<ReplanStep> ExchangeDescent::best_step() {
  rank_by_load();
  const Exchange best = best_of_all();
  if (best.item_a < 0 || -best.change <= kRounding * std::abs(energy())) return std::nullopt;
  apply(best);
  return ReplanStep{
      .slot_a = best.item_a, .slot_b = best.item_b, .num_moved = num_moved(), .energy = energy()};
}

double ExchangeDescent::copy_cost() const {
  return state_.energy.cost(ranks_.cost(), nodes_ ? nodes_->cost() : 0);
}

std::int32_t ExchangeDescent::node_of(std::int32_t rank) const {
  return state_.cluster.node_of(RankId{rank});
}

ExpertId ExchangeDescent::expert_of(std::int32_t item) const {
  return state_.running.slots.all()[std::size_t(item)];
}

bool ExchangeDescent::has_cost_bound() const {
  return state_.energy.max_cost < std::numeric_limits<double>::infinity();
}

void ExchangeDescent::rank_by_load() {
  std::vector<std::int32_t> ranks(loads_.size());
  std::iota(ranks.begin(), ranks.end(), 0);
  const auto count = std::min<std::size_t>(3, ranks.size());
  std::ranges::partial_sort(ranks, ranks.begin() + std::ptrdiff_t(count), std::greater(),
                            [&](std::int32_t rank) { return at(loads_, rank); });
  busiest_.assign(ranks.begin(), ranks.begin() + std::ptrdiff_t(count));
}

// The largest load of the ranks that are not exchanged; 0 if there is no other.
std::int64_t ExchangeDescent::largest_elsewhere(std::int32_t rank_a, std::int32_t rank_b) const {
  const auto other = std::ranges::find_if(
      busiest_, [&](std::int32_t rank) { return rank != rank_a && rank != rank_b; });
  return other == busiest_.end() ? 0 : at(loads_, *other);
}

// Whether `item` may take a slot of `to`: no other replica of its expert is on that rank, and its
// replicas are on no fewer nodes afterwards.
bool ExchangeDescent::may_move(std::int32_t item, std::int32_t to) const {
  if (holds_(to, std::int64_t(expert_of(item))) != 0) return false;
  const std::int32_t from_node = node_of(ranks_.group_of(item)), to_node = node_of(to);
  if (from_node == to_node) return true;
  if (state_.is_fixed_to_nodes) return false;
  bool stays_in_from = false, is_in_to = false;
  for (const std::int32_t replica : at(state_.items_of, expert_of(item))) {
    if (replica == item) continue;
    const std::int32_t node = node_of(ranks_.group_of(replica));
    stays_in_from |= node == from_node;
    is_in_to |= node == to_node;
  }
  return stays_in_from || !is_in_to;
}

// Replaces `found` by the items of rank `from` that may move to rank `to`.
void ExchangeDescent::find_candidates(std::int32_t from, std::int32_t to,
                                      std::vector<Candidate>& found) const {
  const std::int32_t to_node = node_of(to);
  const bool changes_node = nodes_ && node_of(from) != to_node;
  found.clear();
  for (const std::int32_t item : at(items_on_, from)) {
    if (!may_move(item, to)) continue;
    const std::int64_t node_delta = changes_node ? nodes_->move_delta(item, to_node) : 0;
    found.push_back({.item = item,
                     .load = state_.served.load(item),
                     .change = state_.energy.cost(ranks_.move_delta(item, to), node_delta)});
  }
}

// What the energy changes by if the cost of copies changes by `cost` and `shift` more choices are
// served by the first of two ranks, and as many less by the second.
class ExchangeDescent::ChangeOfEnergy {
 public:
  ChangeOfEnergy(const SearchEnergy& energy, double copy_cost, std::int64_t load_a,
                 std::int64_t load_b, std::int64_t elsewhere)
      : energy_(energy),
        copy_cost_(copy_cost),
        load_a_(load_a),
        load_b_(load_b),
        elsewhere_(elsewhere),
        before_(0) {
    before_ = after(0, 0);
  }
  double operator()(double cost, std::int64_t shift) const { return after(cost, shift) - before_; }

 private:
  double after(double cost, std::int64_t shift) const {
    const auto excess = [&](std::int64_t load) {
      return std::max(0.0, static_cast<double>(load) - energy_.max_load);
    };
    const std::int64_t load_a = load_a_ + shift, load_b = load_b_ - shift;
    double result =
        energy_.copy_scale * cost + energy_.load_penalty * (excess(load_a) + excess(load_b));
    if (energy_.imbalance_scale > 0) {
      const auto largest = static_cast<double>(std::max({elsewhere_, load_a, load_b}));
      result += energy_.imbalance_scale * largest / energy_.mean_load;
    }
    return result + energy_.cost_penalty * std::max(0.0, copy_cost_ + cost - energy_.max_cost);
  }

  const SearchEnergy& energy_;
  double copy_cost_;
  std::int64_t load_a_, load_b_, elsewhere_;
  double before_;
};

ExchangeDescent::Exchange ExchangeDescent::best_exchange(std::int32_t rank_a, std::int32_t rank_b,
                                                         std::int64_t elsewhere) {
  const SearchEnergy& energy = state_.energy;
  const bool changes_node = nodes_ && node_of(rank_a) != node_of(rank_b);
  const ChangeOfEnergy change_of(energy, copy_cost(), at(loads_, rank_a), at(loads_, rank_b),
                                 elsewhere);
  find_candidates(rank_a, rank_b, from_a_);
  find_candidates(rank_b, rank_a, from_b_);
  Exchange best{.change = std::numeric_limits<double>::infinity()};
  for (const Candidate& a : from_a_) {
    for (const Candidate& b : from_b_) {
      const std::int64_t node_delta = changes_node ? nodes_->together_delta(a.item, b.item) : 0;
      const double cost =
          a.change + b.change + energy.cost(ranks_.together_delta(a.item, b.item), node_delta);
      const double change = change_of(cost, b.load - a.load);
      if (change < best.change) best = {a.item, b.item, change};
    }
  }
  return best;
}

ExchangeDescent::Exchange ExchangeDescent::best_of_all() {
  const auto ep_size = static_cast<std::int32_t>(loads_.size());
  Exchange best;
  for (std::int32_t rank_a = 0; rank_a < ep_size; ++rank_a) {
    for (std::int32_t rank_b = rank_a + 1; rank_b < ep_size; ++rank_b) {
      KnownExchange& known = known_(rank_a, rank_b);
      const std::int64_t elsewhere =
          state_.energy.imbalance_scale > 0 ? largest_elsewhere(rank_a, rank_b) : 0;
      if (!known.is_known || known.largest_elsewhere != elsewhere || has_cost_bound()) {
        known = {.best = best_exchange(rank_a, rank_b, elsewhere),
                 .is_known = true,
                 .largest_elsewhere = elsewhere};
      }
      if (known.best.item_a >= 0 && (best.item_a < 0 || known.best.change < best.change)) {
        best = known.best;
      }
    }
  }
  return best;
}

void ExchangeDescent::apply(const Exchange& exchange) {
  const std::int32_t a = exchange.item_a, b = exchange.item_b;
  const std::int32_t rank_a = ranks_.group_of(a), rank_b = ranks_.group_of(b);
  const std::int64_t shift = state_.served.load(b) - state_.served.load(a);
  at(loads_, rank_a) += shift;
  at(loads_, rank_b) -= shift;
  const auto move_item = [&](std::int32_t item, std::int32_t from, std::int32_t to) {
    holds_(from, std::int64_t(expert_of(item))) = 0;
    holds_(to, std::int64_t(expert_of(item))) = 1;
    std::erase(at(items_on_, from), item);
    auto& items = at(items_on_, to);
    items.insert(std::ranges::upper_bound(items, item), item);
  };
  move_item(a, rank_a, rank_b);
  move_item(b, rank_b, rank_a);
  if (nodes_ && node_of(rank_a) != node_of(rank_b)) nodes_->swap(a, b);
  ranks_.swap(a, b);
  forget(rank_a, rank_b);
}

// Of an exchange between nodes, all ranks of both have changed: what copies between nodes cost, and
// where replicas may go.
void ExchangeDescent::forget(std::int32_t rank_a, std::int32_t rank_b) {
  const std::int32_t node_a = node_of(rank_a), node_b = node_of(rank_b);
  const auto has_changed = [&](std::int32_t rank) {
    if (node_a == node_b) return rank == rank_a || rank == rank_b;
    return node_of(rank) == node_a || node_of(rank) == node_b;
  };
  for (std::int32_t a = 0; a < std::ssize(loads_); ++a) {
    for (std::int32_t b = a + 1; b < std::ssize(loads_); ++b) {
      if (has_changed(a) || has_changed(b)) known_(a, b).is_known = false;
    }
  }
}

std::int64_t ExchangeDescent::num_moved() const {
  return std::transform_reduce(
      holds_.all().begin(), holds_.all().end(), held_.all().begin(), std::int64_t{0}, std::plus<>(),
      [](std::uint8_t is_held, std::uint8_t was_held) { return is_held && !was_held ? 1 : 0; });
}

}  // namespace c2r::internal
