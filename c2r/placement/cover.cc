#include "c2r/placement/cover.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "c2r/core/error.h"

namespace c2r {

CoverSolver::CoverSolver(const Cluster& cluster)
    : ranks_per_node_(cluster.ranks_per_node),
      bit_of_rank_(static_cast<std::size_t>(cluster.ep_size()), -1),
      bit_of_node_(static_cast<std::size_t>(cluster.num_nodes), -1) {}

// 0 if there are too many ranks already.
CoverSolver::RankSet CoverSolver::bit_of(std::uint16_t rank) {
  std::int32_t& bit = bit_of_rank_[rank];
  if (bit < 0) {
    if (std::ssize(rank_of_bit_) == kMaxHosts) return 0;
    bit = static_cast<std::int32_t>(std::ssize(rank_of_bit_));
    rank_of_bit_.push_back(rank);
    std::int32_t& node_bit = bit_of_node_[std::size_t(rank / ranks_per_node_)];
    if (node_bit < 0) node_bit = bit;  // a node is known by its first rank
    node_of_bit_.push_back(std::uint64_t{1} << node_bit);
  }
  return RankSet{1} << bit;
}

void CoverSolver::number_hosts(std::span<const std::span<const std::uint16_t>> hosts) {
  for (const std::uint16_t rank : rank_of_bit_) {
    bit_of_rank_[rank] = -1;
    bit_of_node_[std::size_t(rank / ranks_per_node_)] = -1;
  }
  rank_of_bit_.clear(), node_of_bit_.clear();
  hosts_.assign(hosts.size(), 0);
  for (std::size_t i = 0; i < hosts.size(); ++i) {
    if (hosts[i].size() == 1) hosts_[i] = bit_of(hosts[i][0]);
  }
  for (std::size_t i = 0; i < hosts.size(); ++i) {
    if (hosts[i].size() > 1) hosts_[i] = bit_of(hosts[i][0]);
  }
  for (std::size_t i = 0; i < hosts.size(); ++i) {
    for (const std::uint16_t rank : hosts[i].subspan(1)) hosts_[i] |= bit_of(rank);
  }
}

void CoverSolver::solve(std::span<const std::span<const std::uint16_t>> hosts,
                        std::span<const std::int64_t> loads, std::span<std::uint16_t> served_by) {
  C2R_ASSERT(hosts.size() == served_by.size() && hosts.size() <= std::size_t{kMaxHosts});
  number_hosts(hosts);
  loads_ = loads;
  RankSet used = 0;  // no choice: visited in every cover
  for (const RankSet ranks : hosts_) used |= std::has_single_bit(ranks) ? ranks : 0;
  std::uint64_t open = 0;
  for (std::size_t i = 0; i < hosts_.size(); ++i) {
    if ((hosts_[i] & used) == 0) open |= std::uint64_t{1} << i;
  }
  best_ = used;
  if (open != 0) {
    best_size_ = std::numeric_limits<std::int32_t>::max();
    steps_ = 0;
    branch(used, std::popcount(used), open);
  }
  for (std::size_t i = 0; i < hosts_.size(); ++i) {
    RankSet serving = hosts_[i] & best_;
    served_by[i] = rank_of_bit_[std::size_t(std::countr_zero(serving))];
    for (serving &= serving - 1; serving != 0; serving &= serving - 1) {
      const std::uint16_t rank = rank_of_bit_[std::size_t(std::countr_zero(serving))];
      if (std::pair(loads[rank], rank) < std::pair(loads[served_by[i]], served_by[i])) {
        served_by[i] = rank;
      }
    }
  }
}

// `open` holds the experts that no rank of `used` serves.
void CoverSolver::branch(RankSet used, std::int32_t num_used, std::uint64_t open) {
  if (open == 0) return consider(used, num_used);
  if (num_used >= best_size_ || (++steps_ > kMaxSteps && best_size_ < kMaxHosts)) return;
  std::int32_t fewest = kMaxHosts + 1;
  RankSet choices = 0;
  for (std::uint64_t rest = open; rest != 0; rest &= rest - 1) {
    const RankSet ranks = hosts_[std::size_t(std::countr_zero(rest))];
    if (std::popcount(ranks) < fewest) fewest = std::popcount(ranks), choices = ranks;
  }
  for (; choices != 0; choices &= choices - 1) {
    const RankSet rank = choices & (~choices + 1);
    std::uint64_t still_open = 0;
    for (std::uint64_t rest = open; rest != 0; rest &= rest - 1) {
      if ((hosts_[std::size_t(std::countr_zero(rest))] & rank) == 0) still_open |= rest & -rest;
    }
    branch(used | rank, num_used + 1, still_open);
  }
}

void CoverSolver::consider(RankSet used, std::int32_t num_used) {
  if (num_used > best_size_) return;
  std::uint64_t nodes = 0;
  for (RankSet rest = used; rest != 0; rest &= rest - 1) {
    nodes |= node_of_bit_[std::size_t(std::countr_zero(rest))];
  }
  const std::int32_t num_nodes = std::popcount(nodes);
  if (num_used == best_size_ && num_nodes > best_ties_.first) return;
  std::int64_t load = 0;
  for (const RankSet ranks : hosts_) {
    std::int64_t least = std::numeric_limits<std::int64_t>::max();
    for (RankSet rest = ranks & used; rest != 0; rest &= rest - 1) {
      least = std::min(least, loads_[rank_of_bit_[std::size_t(std::countr_zero(rest))]]);
    }
    load += least;
  }
  const std::pair ties{num_nodes, load};
  if (num_used < best_size_ || ties < best_ties_) {
    best_ = used;
    best_size_ = num_used;
    best_ties_ = ties;
  }
}

}  // namespace c2r
