// The balancer: starts from EPLB's placement and from a greedy one, and improves them by moves.
//
// Outline. A state is a placement with the load of every rank, where an expert's slots share its
// load, also two slots of one rank, as DeepSeek counts. Each step looks at the busiest rank and
// takes the best of
//   a swap     of one of its slots with a slot of another rank,
//   a replica  of one of its experts in the slot of another rank whose expert has several, and
//   an expert  that it lacks in one of its own slots whose expert has several,
// if the largest load of the ranks that change becomes smaller than the busiest's. It ends when no
// move does that. Moves never put an expert on a rank that holds it. Where EPLB does, one start has
// its placement repaired, one has it as it is, and one has the second slot empty until the moves
// are done; then the slot gets the best expert, which may be one that its rank holds. The most even
// result is kept, and of equal ones one that holds no expert twice on a rank.
#include "c2r/placement/baselines/balance.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "c2r/core/at.h"
#include "c2r/core/error.h"
#include "c2r/placement/baselines/baselines_internal.h"

namespace c2r {
namespace {

// A gain below this share of the mean load is none, so that rounding cannot keep the search going.
constexpr double kLeastGain = 1e-9;

class BalanceState {
 public:
  BalanceState(Placement placement, std::span<const double> loads)
      : placement_(std::move(placement)),
        loads_(loads),
        num_replicas_(loads.size()),
        rank_load_(static_cast<std::size_t>(placement_.ep_size())) {
    for (const ExpertId e : placement_.slots.all()) {
      if (e != kNoExpert) ++at(num_replicas_, e);
    }
    for (std::int64_t rank = 0; rank < placement_.slots.rows(); ++rank) {
      for (const ExpertId e : placement_.slots.row(rank)) {
        if (e != kNoExpert) at(rank_load_, rank) += share(e);
      }
    }
    const double total = std::accumulate(rank_load_.begin(), rank_load_.end(), 0.0);
    least_gain_ = kLeastGain * total / static_cast<double>(rank_load_.size());
  }

  void improve() {
    while (improve_once()) {
    }
  }
  // Puts into each empty slot the expert after which the ranks that change are the most even, which
  // may be one that the rank holds.
  void fill() {
    for (std::int64_t rank = 0; rank < placement_.slots.rows(); ++rank) {
      for (std::int64_t position = 0; position < placement_.slots.cols(); ++position) {
        if (placement_.slots(rank, position) != kNoExpert) continue;
        std::optional<Move> best;
        for (std::int32_t e = 0; e < placement_.num_experts; ++e) {
          consider_change({.rank = rank, .other = position, .gets = ExpertId{e}}, best);
        }
        if (best) apply(*best, rank);
      }
    }
  }
  bool is_more_even_than(const BalanceState& other) const {
    return std::ranges::max(rank_load_) < std::ranges::max(other.rank_load_) - least_gain_;
  }
  const Placement& placement() const { return placement_; }

 private:
  struct Move {
    std::int64_t position = 0;          // of a slot of the busiest rank that is swapped
    std::int64_t rank = 0, other = 0;   // with this one, or the one slot that changes
    std::optional<ExpertId> gets = {};  // the expert of the one slot; nothing in a swap
    double largest = 0;                 // load of the ranks that change, afterwards
  };

  double share(ExpertId e) const { return at(loads_, e) / at(num_replicas_, e); }
  std::int64_t count(std::int64_t rank, ExpertId e) const {
    return std::ranges::count(placement_.slots.row(rank), e);
  }
  bool holds(std::int64_t rank, ExpertId e) const { return count(rank, e) > 0; }

  bool improve_once() {
    const std::int64_t busiest = std::ranges::max_element(rank_load_) - rank_load_.begin();
    std::optional<Move> best;
    for (std::int64_t position = 0; position < placement_.slots.cols(); ++position) {
      consider_slot(busiest, position, best);
    }
    if (!best || best->largest >= at(rank_load_, busiest) - least_gain_) return false;
    apply(*best, busiest);
    return true;
  }

  // Considers all moves of one slot of the busiest rank.
  void consider_slot(std::int64_t busiest, std::int64_t position, std::optional<Move>& best) const {
    const ExpertId mine = placement_.slots(busiest, position);
    if (mine == kNoExpert) return;
    for (std::int64_t rank = 0; rank < placement_.slots.rows(); ++rank) {
      if (rank == busiest || holds(rank, mine)) continue;
      for (std::int64_t other = 0; other < placement_.slots.cols(); ++other) {
        consider_swap(busiest, {.position = position, .rank = rank, .other = other}, best);
        consider_change({.rank = rank, .other = other, .gets = mine}, best);
      }
    }
    for (std::int32_t e = 0; e < placement_.num_experts; ++e) {
      if (holds(busiest, ExpertId{e})) continue;
      consider_change({.rank = busiest, .other = position, .gets = ExpertId{e}}, best);
    }
  }

  void consider_swap(std::int64_t busiest, Move move, std::optional<Move>& best) const {
    const ExpertId theirs = placement_.slots(move.rank, move.other);
    if (theirs == kNoExpert || holds(busiest, theirs)) return;
    const double moved = share(placement_.slots(busiest, move.position)) - share(theirs);
    move.largest = std::max(at(rank_load_, busiest) - moved, at(rank_load_, move.rank) + moved);
    if (!best || move.largest < best->largest) best = move;
  }

  void consider_change(Move move, std::optional<Move>& best) const {
    const ExpertId loses = placement_.slots(move.rank, move.other);
    if (loses != kNoExpert && at(num_replicas_, loses) == 1) return;
    move.largest = largest_after_change(*move.gets, loses, move.rank);
    if (!best || move.largest < best->largest) best = move;
  }

  // The largest load of the ranks that change if a slot of `rank` gets one expert and loses
  // another.
  double largest_after_change(ExpertId gets, ExpertId loses, std::int64_t rank) const {
    const double gets_now = share(gets),
                 gets_then = at(loads_, gets) / (at(num_replicas_, gets) + 1);
    const bool frees = loses == kNoExpert;
    const double loses_now = frees ? 0 : share(loses);
    const double loses_then = frees ? 0 : at(loads_, loses) / (at(num_replicas_, loses) - 1);
    double largest = 0;
    for (std::int64_t r = 0; r < placement_.slots.rows(); ++r) {
      const std::int64_t num_gets = count(r, gets), num_loses = frees ? 0 : count(r, loses);
      if (r != rank && num_gets == 0 && num_loses == 0) continue;
      const std::int64_t num_kept = r == rank && !frees ? num_loses - 1 : num_loses;
      double load = at(rank_load_, r) + static_cast<double>(num_gets) * (gets_then - gets_now) +
                    static_cast<double>(num_kept) * (loses_then - loses_now);
      if (r == rank) load += gets_then - loses_now;
      largest = std::max(largest, load);
    }
    return largest;
  }

  void apply(const Move& move, std::int64_t busiest) {
    ExpertId& theirs = placement_.slots(move.rank, move.other);
    if (move.gets) {
      theirs = *move.gets;
    } else {
      std::swap(placement_.slots(busiest, move.position), theirs);
    }
    *this = BalanceState(std::move(placement_), loads_);  // sums anew, so that no rounding adds up
  }

  Placement placement_;
  std::span<const double> loads_;           // [num_experts]
  std::vector<std::int32_t> num_replicas_;  // [num_experts]
  std::vector<double> rank_load_;           // [ep_size]
  double least_gain_ = 0;
};

// Replicas for the experts with most load per replica, then the heaviest to the lightest rank with
// a free slot that lacks it.
std::optional<Placement> place_greedily(const BaselineProblem& problem,
                                        std::span<const double> loads) {
  const std::int32_t ep_size = problem.cluster.ep_size();
  std::vector<std::int32_t> replicas(loads.size(), 1);
  for (std::int32_t slot = problem.num_experts(); slot < problem.num_slots(); ++slot) {
    std::int64_t best = -1;
    for (std::int64_t e = 0; e < problem.num_experts(); ++e) {
      if (at(replicas, e) == ep_size) continue;
      if (best < 0 || at(loads, e) * at(replicas, best) > at(loads, best) * at(replicas, e)) {
        best = e;
      }
    }
    ++at(replicas, best);
  }
  std::vector<std::int64_t> order(loads.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](std::int64_t a, std::int64_t b) {
    return at(loads, a) * at(replicas, b) > at(loads, b) * at(replicas, a);
  });
  std::vector<std::vector<std::int32_t>> held(static_cast<std::size_t>(ep_size));
  std::vector<double> rank_load(static_cast<std::size_t>(ep_size));
  for (const std::int64_t e : order) {
    for (std::int32_t replica = 0; replica < at(replicas, e); ++replica) {
      std::int64_t lightest = -1;
      for (std::int64_t rank = 0; rank < ep_size; ++rank) {
        const auto& experts = at(held, rank);
        if (std::ssize(experts) == problem.slots_per_rank ||
            std::ranges::count(experts, static_cast<std::int32_t>(e)) > 0) {
          continue;
        }
        if (lightest < 0 || at(rank_load, rank) < at(rank_load, lightest)) lightest = rank;
      }
      if (lightest < 0) return std::nullopt;  // the ranks with free slots all hold it
      at(held, lightest).push_back(static_cast<std::int32_t>(e));
      at(rank_load, lightest) += at(loads, e) / at(replicas, e);
    }
  }
  return placement_of_ranks(problem.num_experts(), held);
}

}  // namespace

Placement internal::place_balance(const BaselineProblem& problem) {
  const auto tokens = expert_loads(problem.counts);
  const std::vector<double> loads(tokens.begin(), tokens.end());
  BalanceState best(place_eplb(problem), loads);
  best.improve();
  const auto try_start = [&](Placement start) {
    BalanceState other(std::move(start), loads);
    other.improve();
    other.fill();
    other.improve();
    if (other.is_more_even_than(best)) best = std::move(other);
  };
  if (auto greedy = place_greedily(problem, loads)) try_start(std::move(*greedy));
  const Placement eplb{.num_experts = problem.num_experts(), .slots = slots_of_eplb(problem)};
  Placement without_repeats = eplb;
  if (empty_repeats(without_repeats.slots) > 0) {
    try_start(std::move(without_repeats));
    try_start(eplb);
  }
  return best.placement();
}

double imbalance_of_loads(const Placement& placement, std::span<const std::int64_t> loads) {
  C2R_REQUIRE(std::ssize(loads) == placement.num_experts, kInvalidArgument,
              "there are loads of {} experts, but the placement is for {}", loads.size(),
              placement.num_experts);
  std::vector<std::int32_t> replicas(loads.size());
  for (const ExpertId e : placement.slots.all()) {
    if (e != kNoExpert) ++at(replicas, e);
  }
  double largest = 0, total = 0;
  for (std::int64_t rank = 0; rank < placement.slots.rows(); ++rank) {
    double load = 0;
    for (const ExpertId e : placement.slots.row(rank)) {
      if (e != kNoExpert) load += static_cast<double>(at(loads, e)) / at(replicas, e);
    }
    largest = std::max(largest, load);
    total += load;
  }
  return total > 0 ? largest * static_cast<double>(placement.slots.rows()) / total : 1;
}

double imbalance_bound_of_loads(std::span<const std::int64_t> loads, std::int32_t ep_size,
                                std::int64_t num_slots) {
  double largest = 0, total = 0;
  for (const std::int64_t load : loads) {
    largest = std::max(largest, static_cast<double>(load));
    total += static_cast<double>(load);
  }
  const auto replicas = std::min<std::int64_t>(ep_size, 1 + num_slots - std::ssize(loads));
  return total > 0 ? std::max(1.0, largest / static_cast<double>(replicas) * ep_size / total) : 1;
}

}  // namespace c2r
