// The smallest cover of a token's experts by ranks: branch and bound over sets of ranks as bits.
#include "c2r/placement/cost/cover.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <numeric>
#include <tuple>
#include <utility>

#include "c2r/core/at.h"
#include "c2r/core/error.h"
#include "c2r/routing/routing.h"

namespace c2r {
namespace {

std::size_t lowest(std::uint64_t set) {
  return static_cast<std::size_t>(std::countr_zero(set));
}

}  // namespace

CoverSolver::CoverSolver(const Cluster& cluster, std::int32_t num_experts)
    : ranks_per_node_(cluster.ranks_per_node),
      num_nodes_(cluster.num_nodes),
      hosts_of_expert_(static_cast<std::size_t>(num_experts)),
      bit_of_rank_(static_cast<std::size_t>(cluster.ep_size()), -1),
      bits_of_node_(static_cast<std::size_t>(cluster.num_nodes)) {
  if (cluster.ep_size() > kMaxHosts) return;
  std::vector<std::uint16_t> ranks(bit_of_rank_.size());
  std::iota(ranks.begin(), ranks.end(), std::uint16_t{0});
  number(ranks);
  bits_of_expert_.resize(hosts_of_expert_.size());
}

void CoverSolver::set_hosts(std::int32_t expert, std::span<const std::uint16_t> ranks) {
  const auto e = static_cast<std::size_t>(expert);
  C2R_REQUIRE(e < hosts_of_expert_.size(), kInvalidArgument,
              "expert {} is given hosts, but there are {} experts", expert,
              hosts_of_expert_.size());
  for (const std::uint16_t rank : ranks) {
    C2R_REQUIRE(rank < bit_of_rank_.size(), kInvalidArgument,
                "expert {} is hosted by rank {}, but the cluster has ranks 0 to {}", expert, rank,
                bit_of_rank_.size() - 1);
  }
  hosts_of_expert_[e].assign(ranks.begin(), ranks.end());
  if (!bits_of_expert_.empty()) bits_of_expert_[e] = bits_of(ranks);
}

// `ranks` ascend.
void CoverSolver::number(std::span<const std::uint16_t> ranks) {
  const auto node_of = [&](std::uint16_t rank) { return std::size_t(rank / ranks_per_node_); };
  for (const std::uint16_t rank : rank_of_bit_) {
    bit_of_rank_[rank] = -1;
    bits_of_node_[node_of(rank)] = 0;
  }
  rank_of_bit_.assign(ranks.begin(), ranks.end());
  for (std::size_t bit = 0; bit < ranks.size(); ++bit) {
    bit_of_rank_[ranks[bit]] = static_cast<std::int32_t>(bit);
    bits_of_node_[node_of(ranks[bit])] |= RankSet{1} << bit;
  }
  node_of_bit_.clear();
  for (const std::uint16_t rank : ranks) node_of_bit_.push_back(bits_of_node_[node_of(rank)]);
}

CoverSolver::RankSet CoverSolver::bits_of(std::span<const std::uint16_t> ranks) const {
  RankSet bits = 0;
  for (const std::uint16_t rank : ranks) {
    if (bit_of_rank_[rank] >= 0) bits |= RankSet{1} << bit_of_rank_[rank];
  }
  return bits;
}

// Where there are more ranks than bits, those that matter to this token get one.
void CoverSolver::number_hosts(std::span<const std::uint16_t> experts) {
  std::vector<std::uint16_t>& ranks = hosts_of_token_;
  ranks.clear();
  const auto add = [&](std::uint16_t rank) {
    if (std::ssize(ranks) < kMaxHosts && std::ranges::find(ranks, rank) == ranks.end()) {
      ranks.push_back(rank);
    }
  };
  for (const std::uint16_t e : experts) {
    if (hosts_of_expert_[e].size() == 1) add(hosts_of_expert_[e][0]);
  }
  for (const std::uint16_t e : experts) add(hosts_of_expert_[e][0]);
  for (const std::uint16_t e : experts) std::ranges::for_each(hosts_of_expert_[e], add);
  std::ranges::sort(ranks);
  number(ranks);
}

void CoverSolver::solve(std::span<const std::uint16_t> experts, std::span<const std::int64_t> loads,
                        std::span<std::uint16_t> served_by, std::int32_t home_node) {
  set_token(experts);
  choose(loads, served_by, home_node);
}

void CoverSolver::set_token(std::span<const std::uint16_t> experts) {
  C2R_REQUIRE(std::ssize(experts) <= kMaxTopK, kInvalidArgument,
              "a token has {} experts, but at most {} can be served", experts.size(), kMaxTopK);
  for (const std::uint16_t e : experts) {
    C2R_REQUIRE(e < hosts_of_expert_.size(), kInvalidArgument,
                "a token names expert {}, but there are {} experts", e, hosts_of_expert_.size());
  }
  if (bits_of_expert_.empty()) number_hosts(experts);
  hosts_.clear(), choices_.clear(), covers_.clear();
  RankSet used = 0;  // no choice: visited in every cover
  for (const std::uint16_t e : experts) {
    const RankSet hosts =
        bits_of_expert_.empty() ? bits_of(hosts_of_expert_[e]) : bits_of_expert_[e];
    hosts_.push_back(hosts);
    std::has_single_bit(hosts) ? void(used |= hosts) : choices_.push_back(hosts);
  }
  std::uint64_t open = 0;
  for (std::size_t i = 0; i < choices_.size(); ++i) {
    if ((choices_[i] & used) == 0) open |= std::uint64_t{1} << i;
  }
  is_separable_ = open != 0 && are_separable();
  if (open == 0 || is_separable_) {
    covers_.push_back(used);
    return;
  }
  RankSet nodes = 0;
  for (RankSet rest = used; rest != 0; rest &= rest - 1) nodes |= node_bit(rest & (~rest + 1));
  fewest_ranks_ = std::numeric_limits<std::int32_t>::max();
  steps_ = 0;
  branch(used, nodes, open, 0);
}

void CoverSolver::choose(std::span<const std::int64_t> loads, std::span<std::uint16_t> served_by,
                         std::int32_t home_node) {
  C2R_REQUIRE(hosts_.size() == served_by.size() && loads.size() == bit_of_rank_.size(),
              kInvalidArgument,
              "a token of {} experts is served under the loads of {} ranks and fills {} ranks, but "
              "the cluster has {}",
              hosts_.size(), loads.size(), served_by.size(), bit_of_rank_.size());
  loads_ = loads;
  const RankSet best = is_separable_         ? best_of_each(home_node)
                       : covers_.size() == 1 ? covers_[0]
                                             : best_cover(home_node);
  for (std::size_t i = 0; i < hosts_.size(); ++i) {
    served_by[i] = rank_of_bit_[lowest(least_loaded(hosts_[i] & best))];
  }
}

bool CoverSolver::has_choice() const {
  return is_separable_ || covers_.size() > 1 || std::ranges::any_of(choices_, [&](RankSet hosts) {
           return !std::has_single_bit(hosts & covers_[0]);
         });
}

// Whether no rank hosts two experts with a choice, and nodes do not tell covers of as many ranks
// apart. Then every choice of hosts is a smallest cover.
bool CoverSolver::are_separable() const {
  if (num_nodes_ > 1 && ranks_per_node_ > 1) return false;
  RankSet seen = 0;
  for (const RankSet hosts : choices_) {
    if ((seen & hosts) != 0) return false;
    seen |= hosts;
  }
  return true;
}

// best_cover() of separable choices: the home's rank, if the experts without a choice miss it, and
// else of each expert the least loaded host, which no other expert's choice depends on. Of equal
// loads the lowest hosts are the lexicographically lowest ranks.
CoverSolver::RankSet CoverSolver::best_of_each(std::int32_t home_node) const {
  const RankSet home = home_node == kNoNode ? 0 : at(bits_of_node_, home_node);
  const bool is_home_missing = num_nodes_ > 1 && (covers_[0] & home) == 0;
  RankSet best = covers_[0];
  for (const RankSet hosts : choices_) {
    if ((hosts & covers_[0]) != 0) continue;  // served already
    const bool is_at_home = is_home_missing && (hosts & home) != 0;
    best |= least_loaded(is_at_home ? hosts & home : hosts);
  }
  return best;
}

// `open` holds the choices_ that no rank of `used` serves; covers with ranks of `tried` are known.
void CoverSolver::branch(RankSet used, RankSet nodes, std::uint64_t open, RankSet tried) {
  std::int32_t fewest = kMaxHosts + 1;
  RankSet choices = 0, serve_all = ~tried;
  for (std::uint64_t rest = open; rest != 0; rest &= rest - 1) {
    const RankSet ranks = choices_[lowest(rest)] & ~tried;
    serve_all &= ranks;
    if (std::popcount(ranks) < fewest) fewest = std::popcount(ranks), choices = ranks;
  }
  for (RankSet rest = serve_all; rest != 0; rest &= rest - 1) {
    const RankSet rank = rest & (~rest + 1);
    consider(used | rank, nodes | node_bit(rank));
  }
  if (serve_all != 0) return;  // two ranks more are too many
  for (; choices != 0; choices &= choices - 1) {
    if (std::popcount(used) + 2 > fewest_ranks_ || (++steps_ > kMaxSteps && !covers_.empty())) {
      return;
    }
    const RankSet rank = choices & (~choices + 1);
    std::uint64_t still_open = 0;
    for (std::uint64_t rest = open; rest != 0; rest &= rest - 1) {
      if ((choices_[lowest(rest)] & rank) == 0) still_open |= rest & -rest;
    }
    branch(used | rank, nodes | node_bit(rank), still_open, tried);
    tried |= rank;
  }
}

// Stands for the node of one rank: its lowest rank.
CoverSolver::RankSet CoverSolver::node_bit(RankSet rank) const {
  const RankSet ranks = node_of_bit_[lowest(rank)];
  return ranks & (~ranks + 1);
}

void CoverSolver::consider(RankSet used, RankSet nodes) {
  const std::pair size{std::popcount(used), std::popcount(nodes)};
  const std::pair fewest{fewest_ranks_, fewest_nodes_};
  if (size > fewest) return;
  if (size < fewest) covers_.clear();
  std::tie(fewest_ranks_, fewest_nodes_) = size;
  covers_.push_back(used);
}

// By whether it misses the home node, then load, then ranks.
CoverSolver::RankSet CoverSolver::best_cover(std::int32_t home_node) const {
  const RankSet home = home_node == kNoNode ? ~RankSet{0} : at(bits_of_node_, home_node);
  RankSet best = covers_[0];
  std::pair best_ties{(best & home) == 0, load_of(best)};
  for (std::size_t i = 1; i < covers_.size(); ++i) {
    const RankSet used = covers_[i];
    const bool is_home_missing = (used & home) == 0;
    if (is_home_missing && !best_ties.first) continue;
    const std::pair ties{is_home_missing, load_of(used)};
    const RankSet differing = used ^ best;
    const bool is_lower = (differing & (~differing + 1) & used) != 0;
    if (ties < best_ties || (ties == best_ties && is_lower)) best = used, best_ties = ties;
  }
  return best;
}

// Of the ranks that serve experts with a choice: the others add the same to every cover.
std::int64_t CoverSolver::load_of(RankSet used) const {
  std::int64_t load = 0;
  for (const RankSet ranks : choices_) {
    load += loads_[rank_of_bit_[lowest(least_loaded(ranks & used))]];
  }
  return load;
}

// The rank of `ranks` with the least load; of equals, the lowest.
CoverSolver::RankSet CoverSolver::least_loaded(RankSet ranks) const {
  RankSet best = ranks & (~ranks + 1);
  for (RankSet rest = ranks ^ best; rest != 0; rest &= rest - 1) {
    if (loads_[rank_of_bit_[lowest(rest)]] < loads_[rank_of_bit_[lowest(best)]]) {
      best = rest & (~rest + 1);
    }
  }
  return best;
}

}  // namespace c2r
