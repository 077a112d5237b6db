// Greedy choice of replicas: one replica after another, the one that gains most.
//
// Outline of ReplicaFill::run():
//   1. Serve every token set by the first host of each of its experts; count for every expert e,
//      rank r and node n
//        rank_gain(e, r)  tokens that would visit one rank less if r hosted e: e is the only expert
//                         that their rank serves, and they visit r already
//        node_gain(e, n)  the same of nodes.
//   2. Among all experts e and ranks r with an empty slot, take the largest
//        gain(e, r) = rank_cost x rank_gain(e, r) + node_cost x node_gain(e, node of r)
//                   + load_penalty x (excess(first host of e) + excess(r), before less after)
//      where the tokens that save a rank or a node move from the first host to r, and excess(r) =
//      max(0, load(r) - max_load). Replicas go to nodes without one first. On a thousand ranks most
//      gains are 0 and equal: these slots go to the experts with the most load for each replica.
//   3. Move these tokens to the replica; update the gains from their sets alone. Repeat from 2
//      until no slot is empty. While no token moves, no gain changes: the best rank of an expert is
//      kept until it is full.
#include "c2r/placement/search/replicas/replica_fill.h"

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "c2r/core/at.h"
#include "c2r/core/error.h"

namespace c2r {
namespace {

class ReplicaFill {
 public:
  ReplicaFill(const SetIndex& index, const Cluster& cluster, const SearchEnergy& energy,
              bool is_fixed_to_nodes, std::vector<std::vector<std::int32_t>> experts_of_rank)
      : index_(index),
        cluster_(cluster),
        energy_(energy),
        is_fixed_to_nodes_(is_fixed_to_nodes),
        experts_of_rank_(std::move(experts_of_rank)),
        hosts_(static_cast<std::size_t>(index.num_experts())),
        loads_(static_cast<std::size_t>(cluster.ep_size())),
        rank_gain_(index.num_experts(), cluster.ep_size()),
        node_gain_(index.num_experts(), cluster.num_nodes),
        num_on_rank_(loads_.size()),
        num_on_node_(static_cast<std::size_t>(cluster.num_nodes)),
        best_of_(hosts_.size()) {
    for (std::size_t rank = 0; rank < experts_of_rank_.size(); ++rank) {
      node_of_rank_.push_back(cluster.node_of(RankId{static_cast<std::int32_t>(rank)}));
      for (const std::int32_t e : experts_of_rank_[rank]) {
        at(hosts_, e).push_back(static_cast<std::int32_t>(rank));
        loads_[rank] += index.load(e);
      }
    }
    for (std::int64_t set = 0; set < index.num_sets(); ++set) {
      offsets_.push_back(served_by_.size());
      for (const std::uint16_t e : index.experts(set)) served_by_.push_back(hosts_[e][0]);
      count(set, 1);
    }
  }

  Placement run(std::int32_t slots_per_rank) {
    const auto capacity = static_cast<std::size_t>(slots_per_rank);
    for (std::int32_t rank = 0; rank < cluster_.ep_size(); ++rank) {
      if (at(experts_of_rank_, rank).size() < capacity) open_ranks_.push_back(rank);
    }
    for (;;) {
      const auto [best_expert, best_rank] = best_addition();
      if (best_expert >= 0) {
        add(best_expert, best_rank, capacity);
      } else if (!is_fixed_to_nodes_ && !must_share_nodes_) {
        must_share_nodes_ = true;  // the other nodes are full
        std::ranges::fill(best_of_, BestRank{});
      } else {
        break;
      }
    }
    for (std::size_t rank = 0; rank < experts_of_rank_.size(); ++rank) {
      C2R_REQUIRE(experts_of_rank_[rank].size() == capacity, kInvalidArgument,
                  "rank {} has {} slots, but its node has too few experts for them", rank,
                  slots_per_rank);
    }
    return placement_of_ranks(index_.num_experts(), experts_of_rank_);
  }

  std::int64_t num_judged() const { return num_judged_; }

 private:
  // The rank with an empty slot where one more replica of an expert gains most; -1: it may go to
  // none.
  struct BestRank {
    std::int32_t rank = -1;
    double gain = 0;
    bool is_known = false;
    bool may_have_gains = true;  // else all gains of the expert are 0
  };

  std::int32_t* ranks_of(std::int64_t set) { return &served_by_[at(offsets_, set)]; }
  std::int32_t node_of(std::int32_t rank) const { return at(node_of_rank_, rank); }

  bool is_allowed(std::int32_t expert, std::int32_t rank) const {
    if (must_share_nodes_) {
      return std::ranges::count(at(hosts_, expert), rank) == 0;
    }
    const std::int32_t node = node_of(rank);
    bool is_in_node = false;
    for (const std::int32_t host : at(hosts_, expert)) {
      if (host == rank) return false;
      is_in_node |= node_of(host) == node;
    }
    if (is_fixed_to_nodes_) return is_in_node;
    return !is_in_node || std::ssize(at(hosts_, expert)) >= cluster_.num_nodes;
  }

  double copies_saved(std::int32_t expert, std::int32_t rank) const {
    return energy_.cost(rank_gain_(expert, rank), node_gain_(expert, node_of(rank)));
  }
  double excess(std::int32_t rank, std::int64_t change) const {
    return std::max(0.0, static_cast<double>(at(loads_, rank) + change) - energy_.max_load);
  }
  bool is_gainful(std::int32_t expert, std::int32_t rank) const {
    return rank_gain_(expert, rank) != 0 || node_gain_(expert, node_of(rank)) != 0;
  }

  // Of equal gains, the lowest rank.
  BestRank best_rank_of(std::int32_t expert, bool may_have_gains) {
    BestRank best{.is_known = true, .may_have_gains = false};
    for (const std::int32_t rank : open_ranks_) {
      ++num_judged_;
      const bool has_gain = may_have_gains && is_gainful(expert, rank);
      best.may_have_gains |= has_gain;
      if (best.rank >= 0 && !has_gain && best.gain >= 0) {
        if (!may_have_gains) break;
        continue;
      }
      const double gain = has_gain ? gain_of(expert, rank) : 0;
      if ((best.rank >= 0 && gain <= best.gain) || !is_allowed(expert, rank)) continue;
      best.rank = rank, best.gain = gain;
    }
    return best;
  }

  // Whether `a` has more load for each of its replicas.
  bool is_busier(std::int32_t a, std::int32_t b) const {
    return index_.load(a) * std::ssize(at(hosts_, b)) > index_.load(b) * std::ssize(at(hosts_, a));
  }

  // The expert and the rank with an empty slot whose gain is largest; of equals, those of the
  // lowest rank, then the expert with the most load for each replica, then the lowest expert. -1 if
  // nothing is allowed.
  std::pair<std::int32_t, std::int32_t> best_addition() {
    std::int32_t best_expert = -1;
    BestRank best;
    for (std::int32_t e = 0; e < index_.num_experts(); ++e) {
      BestRank& known = at(best_of_, e);
      if (!known.is_known) known = best_rank_of(e, known.may_have_gains);
      if (known.rank < 0) continue;
      const std::pair key{-known.gain, known.rank}, best_key{-best.gain, best.rank};
      if (best_expert < 0 || key < best_key || (key == best_key && is_busier(e, best_expert))) {
        best_expert = e, best = known;
      }
    }
    return {best_expert, best.rank};
  }

  // gain(e, r) of the outline. At least as many tokens move as the larger of both gains.
  double gain_of(std::int32_t expert, std::int32_t rank) const {
    const std::int64_t moved =
        std::max(rank_gain_(expert, rank), node_gain_(expert, node_of(rank)));
    const std::int32_t from = at(hosts_, expert)[0];
    return copies_saved(expert, rank) +
           energy_.load_penalty *
               (excess(rank, 0) - excess(rank, moved) + excess(from, 0) - excess(from, -moved));
  }

  // Adds to the gains, or with sign -1 subtracts, what one set contributes: an expert that is alone
  // on its rank (node) could be served by any other rank (node) that the token visits.
  void count(std::int64_t set, std::int64_t sign) {
    const auto experts = index_.experts(set);
    const std::int64_t weight = sign * index_.weight(set);
    const std::span ranks(ranks_of(set), experts.size());
    visited_ranks_.clear(), visited_nodes_.clear();
    for (const std::int32_t rank : ranks) {
      const std::int32_t node = node_of(rank);
      if (at(num_on_rank_, rank)++ == 0) visited_ranks_.push_back(rank);
      if (at(num_on_node_, node)++ == 0) visited_nodes_.push_back(node);
    }
    for (std::size_t i = 0; i < experts.size(); ++i) {
      if (at(num_on_rank_, ranks[i]) > 1) continue;
      const auto rank_gain = rank_gain_.row(experts[i]);
      for (const std::int32_t rank : visited_ranks_) {
        at(rank_gain, rank) += rank == ranks[i] ? 0 : weight;
      }
      const std::int32_t own_node = node_of(ranks[i]);
      if (at(num_on_node_, own_node) > 1) continue;
      const auto node_gain = node_gain_.row(experts[i]);
      for (const std::int32_t node : visited_nodes_) {
        at(node_gain, node) += node == own_node ? 0 : weight;
      }
    }
    for (const std::int32_t rank : visited_ranks_) at(num_on_rank_, rank) = 0;
    for (const std::int32_t node : visited_nodes_) at(num_on_node_, node) = 0;
  }

  // Whether a token on `ranks` that leaves `from` for `to` visits one rank, or node, less.
  bool saves_rank(std::span<const std::int32_t> ranks, std::int32_t from, std::int32_t to) const {
    return std::ranges::find(ranks, to) != ranks.end() && std::ranges::count(ranks, from) == 1;
  }
  bool saves_node(std::span<const std::int32_t> ranks, std::int32_t from, std::int32_t to) const {
    const auto num_at = [&](std::int32_t node) {
      return std::ranges::count(ranks, node, [&](std::int32_t rank) { return node_of(rank); });
    };
    return energy_.node_cost > 0 && node_of(from) != node_of(to) && num_at(node_of(from)) == 1 &&
           num_at(node_of(to)) > 0;
  }

  // Adds the replica; tokens that visit one rank or one node less with it move to it.
  void add(std::int32_t expert, std::int32_t rank, std::size_t capacity) {
    at(experts_of_rank_, rank).push_back(expert);
    at(hosts_, expert).push_back(rank);
    const bool is_full = at(experts_of_rank_, rank).size() == capacity;
    if (is_full) std::erase(open_ranks_, rank);
    if (move_tokens(expert, rank)) {
      std::ranges::fill(best_of_, BestRank{});
      return;
    }
    at(best_of_, expert).is_known = false;
    for (BestRank& known : best_of_) known.is_known &= !(is_full && known.rank == rank);
  }

  // @returns whether a token moved
  bool move_tokens(std::int32_t expert, std::int32_t rank) {
    bool has_moved = false;
    index_.for_each_set_of(expert, [&](std::int32_t set) {
      const auto experts = index_.experts(set);
      const std::span ranks(ranks_of(set), experts.size());
      const auto place = std::ranges::find(experts, expert) - experts.begin();
      const std::int32_t from = at(ranks, place);
      if (!saves_rank(ranks, from, rank) && !saves_node(ranks, from, rank)) return;
      count(set, -1);
      at(ranks, place) = rank;
      count(set, 1);
      at(loads_, from) -= index_.weight(set);
      at(loads_, rank) += index_.weight(set);
      has_moved = true;
    });
    return has_moved;
  }

  const SetIndex& index_;
  const Cluster& cluster_;
  const SearchEnergy& energy_;
  bool is_fixed_to_nodes_;
  bool must_share_nodes_ = false;
  std::vector<std::vector<std::int32_t>> experts_of_rank_, hosts_;
  std::vector<std::int32_t> node_of_rank_;  // [ep_size]
  std::vector<std::size_t> offsets_;        // [num_sets], into served_by_
  std::vector<std::int32_t> served_by_;     // the rank of each expert of each set
  std::vector<std::int64_t> loads_;         // [ep_size]
  Matrix<std::int64_t> rank_gain_;          // [num_experts, ep_size]
  Matrix<std::int64_t> node_gain_;          // [num_experts, num_nodes]
  // Scratch of count(): the choices of a set on each rank and node, else 0, and where they are.
  std::vector<std::int32_t> num_on_rank_, num_on_node_;  // [ep_size], [num_nodes]
  std::vector<std::int32_t> visited_ranks_, visited_nodes_;
  std::vector<BestRank> best_of_;         // of each expert
  std::vector<std::int32_t> open_ranks_;  // with an empty slot, ascending
  std::int64_t num_judged_ = 0;
};

}  // namespace

Placement fill_with_replicas(const SetIndex& index, const Cluster& cluster,
                             const SearchEnergy& energy, bool is_fixed_to_nodes,
                             std::int32_t slots_per_rank,
                             std::vector<std::vector<std::int32_t>> experts_of_rank,
                             std::int64_t* num_judged) {
  ReplicaFill fill(index, cluster, energy, is_fixed_to_nodes, std::move(experts_of_rank));
  Placement filled = fill.run(slots_per_rank);
  if (num_judged != nullptr) *num_judged = fill.num_judged();
  return filled;
}

}  // namespace c2r
