// Keeps copies and loads of a placement with replicas exact under changes of its slots.
#include "c2r/placement/search/replicas/replica_state.h"

#include <algorithm>
#include <utility>

#include "c2r/core/at.h"
#include "c2r/core/error.h"

namespace c2r {

ReplicaState::ReplicaState(const SetIndex& index, const Cluster& cluster,
                           const Placement& placement, bool is_fixed_to_nodes)
    : index_(&index),
      cluster_(cluster),
      placement_(placement),
      is_fixed_to_nodes_(is_fixed_to_nodes),
      hosts_(static_cast<std::size_t>(placement.num_experts)),
      offsets_(static_cast<std::size_t>(index.num_sets()) + 1),
      loads_(static_cast<std::size_t>(cluster.ep_size())),
      solver_(cluster, placement.num_experts),
      sizes_(static_cast<std::size_t>(index.num_sets())),
      visited_in_(static_cast<std::size_t>(index.num_sets())) {
  for (std::int64_t rank = 0; rank < placement.ep_size(); ++rank) {
    for (const ExpertId e : placement.slots.row(rank)) {
      at(hosts_, e).push_back(static_cast<std::uint16_t>(rank));
    }
  }
  for (std::int64_t set = 0; set < index.num_sets(); ++set) {
    offsets_[std::size_t(set) + 1] = at(offsets_, set) + index.experts(set).size();
  }
  served_by_.resize(offsets_.back());
  if (index.num_scenarios() > 1) {
    scenario_loads_.resize(loads_.size() * std::size_t(index.num_scenarios()));
  }
  if (CoverCounter::fits(cluster)) counter_.emplace(cluster, placement.num_experts);
  for (std::int32_t e = 0; e < placement.num_experts; ++e) {
    solver_.set_hosts(e, at(hosts_, e));
    if (!counter_) continue;
    for (const std::uint16_t rank : at(hosts_, e)) counter_->flip(e, rank);
  }
  settle_loads();
}

std::span<std::uint16_t> ReplicaState::mutable_ranks_of(std::int64_t set) {
  const std::size_t begin = at(offsets_, set);
  return std::span(served_by_).subspan(begin, offsets_[std::size_t(set) + 1] - begin);
}
std::span<const std::uint16_t> ReplicaState::ranks_of(std::int64_t set) const {
  const std::size_t begin = at(offsets_, set);
  return std::span(served_by_).subspan(begin, offsets_[std::size_t(set) + 1] - begin);
}

CoverSize ReplicaState::size_of(std::span<const std::uint16_t> ranks) const {
  if (counter_) return counter_->size_of(ranks);
  CoverSize size;
  for_each_distinct(
      cluster_, ranks, [&](auto) { ++size.ranks; }, [&](auto) { ++size.nodes; });
  return size;
}

void ReplicaState::keep_tables() {
  if (tables_) return;
  tables_.emplace(cluster_, placement_, index_->num_scenarios());
  for (std::int64_t set = 0; set < index_->num_sets(); ++set) add_to_tables(set, 1);
}

void ReplicaState::add_to_tables(std::int64_t set, std::int64_t sign) {
  if (!tables_) return;
  tables_->add(index_->experts(set), ranks_of(set), index_->weight(set),
               index_->scenario_weights(set), sign);
}

// Adds (or, with sign -1, takes away) what a set costs as it is served now.
void ReplicaState::count(std::int64_t set, std::int64_t sign) {
  add_loads(set, sign);
  count_copies(set, sign);
}

void ReplicaState::count_copies(std::int64_t set, std::int64_t sign) {
  const std::int64_t weight = sign * index_->weight(set);
  const CoverSize size = size_of(ranks_of(set));
  rank_copies_ += size.ranks * weight;
  node_copies_ += size.nodes * weight;
  at(sizes_, set) = size;
  add_to_tables(set, sign);
}

void ReplicaState::add_loads(std::int64_t set, std::int64_t sign) {
  for (const std::uint16_t rank : ranks_of(set)) loads_[rank] += sign * index_->weight(set);
  if (scenario_loads_.empty()) return;
  const auto weights = index_->scenario_weights(set);
  for (std::size_t scenario = 0; scenario < weights.size(); ++scenario) {
    const auto loads = std::span(scenario_loads_).subspan(scenario * loads_.size(), loads_.size());
    for (const std::uint16_t rank : ranks_of(set)) loads[rank] += sign * weights[scenario];
  }
}

bool ReplicaState::serve(std::int64_t set) {
  solver_.solve(index_->experts(set), loads_, mutable_ranks_of(set));
  return solver_.has_choice();
}

void ReplicaState::settle_loads() {
  std::ranges::fill(loads_, 0);
  std::ranges::fill(scenario_loads_, 0);
  rank_copies_ = node_copies_ = 0;
  if (tables_) tables_->clear();
  std::vector<std::int64_t> with_choice;
  for (std::int64_t set = 0; set < index_->num_sets(); ++set) {
    if (serve(set)) with_choice.push_back(set);
    count(set, 1);
  }
  for (const std::int64_t set : with_choice) {  // the loads matter to them, but not to their copies
    add_loads(set, -1);
    add_to_tables(set, -1);
    serve(set);
    add_loads(set, 1);
    add_to_tables(set, 1);
  }
}

bool ReplicaState::is_allowed(std::span<const Change> changes) const {
  for (const Change& change : changes) {
    const auto old = static_cast<std::int32_t>(placement_.slots(change.rank, change.slot));
    if (old == change.expert) return false;
    const auto& hosts = at(hosts_, change.expert);
    if (std::ranges::binary_search(hosts, change.rank)) return false;
    const bool is_swap = changes.size() == 2;
    if (!is_swap && num_replicas(old) == 1) return false;
    const std::int32_t vacated =
        !is_swap ? -1 : (&change == changes.data() ? changes[1].rank : changes[0].rank);
    if (!keeps_nodes(change.expert, vacated, change.rank)) return false;
    if (!is_swap && !keeps_nodes(old, change.rank, -1)) return false;
  }
  return true;
}

// Ranks of -1 are none.
bool ReplicaState::keeps_nodes(std::int32_t expert, std::int32_t lost, std::int32_t gained) const {
  if (is_fixed_to_nodes_) {
    return gained < 0 ||
           cluster_.node_of(RankId{gained}) == cluster_.node_of(RankId{at(hosts_, expert)[0]});
  }
  if (cluster_.num_nodes == 1) return true;
  const std::int32_t missed = missed_nodes(expert, lost, gained);
  return missed == 0 || missed <= missed_nodes(expert, -1, -1);
}

// How many more nodes the replicas of an expert could be on.
std::int32_t ReplicaState::missed_nodes(std::int32_t expert, std::int32_t lost,
                                        std::int32_t gained) const {
  std::int32_t num_hosts = 0, num_nodes = 0, last_node = -1;  // hosts ascend, and so do nodes
  const std::int32_t gained_node = gained < 0 ? -1 : cluster_.node_of(RankId{gained});
  bool is_new_node = gained >= 0;
  for (const std::uint16_t host : at(hosts_, expert)) {
    if (host == lost) continue;
    const std::int32_t node = cluster_.node_of(RankId{host});
    ++num_hosts;
    num_nodes += node != last_node;
    is_new_node &= node != gained_node;
    last_node = node;
  }
  return std::min(num_hosts + (gained >= 0), cluster_.num_nodes) - (num_nodes + is_new_node);
}

std::int32_t ReplicaState::place(const Change& change) {
  ExpertId& slot = placement_.slots(change.rank, change.slot);
  const auto old = static_cast<std::int32_t>(slot);
  slot = ExpertId{change.expert};
  if (tables_) {
    const auto slots_per_rank = static_cast<std::int32_t>(placement_.slots_per_rank());
    tables_->place(change.expert, change.rank * slots_per_rank + change.slot);
  }
  std::erase(at(hosts_, old), static_cast<std::uint16_t>(change.rank));
  auto& hosts = at(hosts_, change.expert);
  hosts.insert(std::ranges::upper_bound(hosts, change.rank),
               static_cast<std::uint16_t>(change.rank));
  for (const std::int32_t e : {old, change.expert}) {
    solver_.set_hosts(e, at(hosts_, e));
    if (counter_) counter_->flip(e, change.rank);
  }
  return old;
}

std::optional<ReplicaState::Copies> ReplicaState::copies_after(std::span<const Change> changes) {
  if (!counter_) return {};
  const auto flip = [&] {
    for (const Change& change : changes) {
      const ExpertId old = placement_.slots(change.rank, change.slot);
      counter_->flip(static_cast<std::int32_t>(old), change.rank);
      counter_->flip(change.expert, change.rank);
    }
  };
  flip();
  Copies copies{rank_copies_, node_copies_};
  const std::int32_t first = changes[0].expert;
  const auto second = static_cast<std::int32_t>(placement_.slots(changes[0].rank, changes[0].slot));
  for (const std::int32_t expert : {first, second}) {
    for (const std::int32_t set : index_->sets_of(expert)) {
      const auto experts = index_->experts(set);
      if (expert == second && std::ranges::find(experts, first) != experts.end()) continue;
      const CoverSize size = counter_->count(experts);
      copies.rank += (size.ranks - at(sizes_, set).ranks) * index_->weight(set);
      copies.node += (size.nodes - at(sizes_, set).nodes) * index_->weight(set);
    }
  }
  flip();
  return copies;
}

// Serves the sets of an expert anew that this apply() has not visited. Returns how many.
std::int64_t ReplicaState::visit_sets_of(std::int32_t expert) {
  std::int64_t num_visited = 0;
  for (const std::int32_t set : index_->sets_of(expert)) {
    if (at(visited_in_, set) == num_applied_) continue;
    at(visited_in_, set) = num_applied_;
    ++num_visited;
    const auto ranks = mutable_ranks_of(set);
    anew_.resize(ranks.size());
    add_loads(set, -1);
    solver_.solve(index_->experts(set), loads_, anew_);
    if (!std::ranges::equal(anew_, ranks)) {
      saved_.push_back({set, static_cast<std::uint32_t>(saved_ranks_.size())});
      saved_ranks_.insert(saved_ranks_.end(), ranks.begin(), ranks.end());
      count_copies(set, -1);
      std::ranges::copy(anew_, ranks.begin());
      count_copies(set, 1);
    }
    add_loads(set, 1);
  }
  return num_visited;
}

std::int64_t ReplicaState::apply(std::span<const Change> changes) {
  C2R_ASSERT(is_allowed(changes));
  ++num_applied_;
  undone_.clear(), saved_.clear(), saved_ranks_.clear();
  for (const Change& change : changes) {
    undone_.push_back({change.rank, change.slot, place(change)});
  }
  std::int64_t num_visited = 0;
  for (const Change& change : changes) {
    num_visited += visit_sets_of(change.expert);
    if (changes.size() == 1) num_visited += visit_sets_of(undone_[0].expert);
  }
  return num_visited;
}

void ReplicaState::undo() {
  for (const Saved& saved : saved_) {
    const auto ranks = mutable_ranks_of(saved.set);
    count(saved.set, -1);
    std::copy_n(saved_ranks_.begin() + saved.offset, ranks.size(), ranks.begin());
    count(saved.set, 1);
  }
  for (const Change& change : undone_) place(change);
  undone_.clear(), saved_.clear();
}

std::vector<std::int64_t> ReplicaState::gains_on(std::int32_t rank) const {
  std::vector<std::int64_t> gains(hosts_.size());
  std::vector<bool> is_seen(static_cast<std::size_t>(index_->num_sets()));
  for (const ExpertId host : placement_.slots.row(rank)) {
    for (const std::int32_t set : index_->sets_of(static_cast<std::int32_t>(host))) {
      if (at(is_seen, set)) continue;
      at(is_seen, set) = true;
      const auto ranks = ranks_of(set);
      if (std::ranges::find(ranks, rank) == ranks.end()) continue;
      const auto experts = index_->experts(set);
      for (std::size_t i = 0; i < ranks.size(); ++i) {
        if (ranks[i] == rank || std::ranges::count(ranks, ranks[i]) > 1) continue;
        gains[experts[i]] += index_->weight(set);
      }
    }
  }
  return gains;
}

}  // namespace c2r
