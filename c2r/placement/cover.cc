#include "c2r/placement/cover.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <numeric>
#include <utility>

#include "c2r/core/error.h"

namespace c2r {
namespace {

std::size_t lowest(std::uint64_t set) {
  return static_cast<std::size_t>(std::countr_zero(set));
}

}  // namespace

CoverSolver::CoverSolver(const Cluster& cluster)
    : ranks_per_node_(cluster.ranks_per_node),
      bit_of_rank_(static_cast<std::size_t>(cluster.ep_size()), -1),
      bits_of_node_(static_cast<std::size_t>(cluster.num_nodes)) {
  std::vector<std::uint16_t> ranks(bit_of_rank_.size());
  std::iota(ranks.begin(), ranks.end(), std::uint16_t{0});
  if (cluster.ep_size() <= kMaxHosts) number(ranks);
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

// Where there are more ranks than bits, those that matter to this token get one.
void CoverSolver::number_hosts(std::span<const std::span<const std::uint16_t>> hosts) {
  std::vector<std::uint16_t>& ranks = hosts_of_token_;
  ranks.clear();
  const auto add = [&](std::uint16_t rank) {
    if (std::ssize(ranks) < kMaxHosts && std::ranges::find(ranks, rank) == ranks.end()) {
      ranks.push_back(rank);
    }
  };
  for (const auto& expert : hosts) {
    if (expert.size() == 1) add(expert[0]);
  }
  for (const auto& expert : hosts) add(expert[0]);
  for (const auto& expert : hosts) std::ranges::for_each(expert, add);
  std::ranges::sort(ranks);
  number(ranks);
}

void CoverSolver::solve(std::span<const std::span<const std::uint16_t>> hosts,
                        std::span<const std::int64_t> loads, std::span<std::uint16_t> served_by,
                        std::int32_t home_node) {
  set_token(hosts);
  choose(loads, served_by, home_node);
}

void CoverSolver::set_token(std::span<const std::span<const std::uint16_t>> hosts) {
  C2R_ASSERT(hosts.size() <= std::size_t{kMaxHosts});
  if (bit_of_rank_.size() > std::size_t{kMaxHosts}) number_hosts(hosts);
  hosts_.assign(hosts.size(), 0);
  RankSet used = 0, nodes = 0;  // no choice: visited in every cover
  for (std::size_t i = 0; i < hosts.size(); ++i) {
    for (const std::uint16_t rank : hosts[i]) {
      if (bit_of_rank_[rank] >= 0) hosts_[i] |= RankSet{1} << bit_of_rank_[rank];
    }
    if (hosts[i].size() == 1) used |= hosts_[i], nodes |= node_bit(hosts_[i]);
  }
  std::uint64_t open = 0;
  for (std::size_t i = 0; i < hosts_.size(); ++i) {
    if ((hosts_[i] & used) == 0) open |= std::uint64_t{1} << i;
  }
  covers_.clear();
  if (open == 0) {
    covers_.push_back(used);
    return;
  }
  fewest_ranks_ = std::numeric_limits<std::int32_t>::max();
  steps_ = 0;
  branch(used, nodes, std::popcount(used), open);
}

void CoverSolver::choose(std::span<const std::int64_t> loads, std::span<std::uint16_t> served_by,
                         std::int32_t home_node) {
  C2R_ASSERT(hosts_.size() == served_by.size());
  loads_ = loads;
  const RankSet best = covers_.size() == 1 ? covers_[0] : best_cover(home_node);
  for (std::size_t i = 0; i < hosts_.size(); ++i) {
    served_by[i] = rank_of_bit_[lowest(least_loaded(hosts_[i] & best))];
  }
}

bool CoverSolver::has_choice() const {
  return covers_.size() > 1 || std::ranges::any_of(hosts_, [&](RankSet hosts) {
           return !std::has_single_bit(hosts & covers_[0]);
         });
}

// `open` holds the experts that no rank of `used` serves.
void CoverSolver::branch(RankSet used, RankSet nodes, std::int32_t num_used, std::uint64_t open) {
  if (open == 0) return consider(used, std::popcount(nodes), num_used);
  if (num_used >= fewest_ranks_ || (++steps_ > kMaxSteps && !covers_.empty())) return;
  std::int32_t fewest = kMaxHosts + 1;
  RankSet choices = 0;
  for (std::uint64_t rest = open; rest != 0; rest &= rest - 1) {
    const RankSet ranks = hosts_[lowest(rest)];
    if (std::popcount(ranks) < fewest) fewest = std::popcount(ranks), choices = ranks;
  }
  for (; choices != 0; choices &= choices - 1) {
    const RankSet rank = choices & (~choices + 1);
    std::uint64_t still_open = 0;
    for (std::uint64_t rest = open; rest != 0; rest &= rest - 1) {
      if ((hosts_[lowest(rest)] & rank) == 0) still_open |= rest & -rest;
    }
    branch(used | rank, nodes | node_bit(rank), num_used + 1, still_open);
  }
}

// Stands for the node of one rank: its lowest rank.
CoverSolver::RankSet CoverSolver::node_bit(RankSet rank) const {
  const RankSet ranks = node_of_bit_[lowest(rank)];
  return ranks & (~ranks + 1);
}

void CoverSolver::consider(RankSet used, std::int32_t num_nodes, std::int32_t num_used) {
  if (num_used > fewest_ranks_) return;
  if (num_used == fewest_ranks_ && num_nodes > fewest_nodes_) return;
  if (num_used < fewest_ranks_ || num_nodes < fewest_nodes_) covers_.clear();
  fewest_ranks_ = num_used;
  fewest_nodes_ = num_nodes;
  covers_.push_back(used);
}

// By whether it misses the home node, then load, then ranks.
CoverSolver::RankSet CoverSolver::best_cover(std::int32_t home_node) const {
  const RankSet home = home_node == kNoNode ? ~RankSet{0} : bits_of_node_[std::size_t(home_node)];
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

std::int64_t CoverSolver::load_of(RankSet used) const {
  std::int64_t load = 0;
  for (const RankSet ranks : hosts_) {
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
