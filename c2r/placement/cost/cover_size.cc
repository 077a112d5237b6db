// The size of the smallest cover alone, by branch and bound over hosts as bits of one word.
#include "c2r/placement/cost/cover_size.h"

#include <algorithm>
#include <bit>

#include "c2r/core/at.h"
#include "c2r/core/error.h"

namespace c2r {

CoverCounter::CoverCounter(const Cluster& cluster, std::int32_t num_experts)
    : has_one_node_(cluster.num_nodes == 1),
      hosts_(static_cast<std::size_t>(num_experts)),
      only_(hosts_.size()) {
  C2R_ASSERT(fits(cluster));
  for (std::int32_t rank = 0; rank < cluster.ep_size(); ++rank) {
    RankSet ranks = 0;
    for (std::int32_t other = 0; other < cluster.ep_size(); ++other) {
      const bool is_same = cluster.node_of(RankId{other}) == cluster.node_of(RankId{rank});
      ranks |= RankSet{is_same} << other;
    }
    ranks_of_node_of_.push_back(ranks);
  }
}

void CoverCounter::flip(std::int32_t expert, std::int32_t rank) {
  RankSet& hosts = at(hosts_, expert);
  hosts ^= RankSet{1} << rank;
  at(only_, expert) = std::has_single_bit(hosts) ? hosts : 0;
}

CoverSize CoverCounter::count(std::span<const std::uint16_t> experts) {
  C2R_ASSERT(experts.size() <= open_.size());
  RankSet used = 0;  // no choice: visited in every cover
  for (const std::uint16_t e : experts) used |= only_[e];
  num_open_ = 0;
  for (const std::uint16_t e : experts) {
    open_[num_open_] = hosts_[e];
    num_open_ += (hosts_[e] & used) == 0 ? 1 : 0;
  }
  const std::int32_t num_used = std::popcount(used);
  if (num_open_ == 0) return {static_cast<std::uint8_t>(num_used), num_nodes(used)};
  best_ = {UINT8_MAX, UINT8_MAX};
  steps_ = 0;
  branch(used, num_used, 0);
  return best_;
}

CoverSize CoverCounter::size_of(std::span<const std::uint16_t> ranks) const {
  RankSet used = 0;
  for (const std::uint16_t rank : ranks) used |= RankSet{1} << rank;
  return {static_cast<std::uint8_t>(std::popcount(used)), num_nodes(used)};
}

void CoverCounter::branch(RankSet used, std::int32_t num_used, std::size_t next_open) {
  while (next_open < num_open_ && (open_[next_open] & used) != 0) ++next_open;
  if (next_open == num_open_) {
    best_ = std::min(best_, {static_cast<std::uint8_t>(num_used), num_nodes(used)});
    return;
  }
  if (has_one_node_ && next_open + 1 == num_open_) {  // any host will do
    best_ = std::min(best_, {static_cast<std::uint8_t>(num_used + 1), 1});
    return;
  }
  for (RankSet choices = open_[next_open]; choices != 0; choices &= choices - 1) {
    if (num_used >= best_.ranks || (++steps_ > kMaxSteps && best_.ranks < UINT8_MAX)) return;
    branch(used | (choices & (~choices + 1)), num_used + 1, next_open + 1);
  }
}

std::uint8_t CoverCounter::num_nodes(RankSet used) const {
  if (has_one_node_) return used == 0 ? 0 : 1;
  std::uint8_t count = 0;
  for (; used != 0; used &= ~at(ranks_of_node_of_, std::countr_zero(used))) ++count;
  return count;
}

}  // namespace c2r
