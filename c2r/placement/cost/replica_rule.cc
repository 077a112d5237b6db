// The replica rules: which host serves each of a token's experts.
#include "c2r/placement/cost/replica_rule.h"

#include <algorithm>
#include <map>

#include "c2r/core/at.h"
#include "c2r/core/error.h"
#include "c2r/core/rng.h"

namespace c2r {
namespace {

// The hosts among which `home` chooses under kLocalFirst: the nearest ones.
std::vector<RankId> nearest_hosts(const std::vector<RankId>& hosts, RankId home,
                                  const Cluster& cluster) {
  if (std::ranges::find(hosts, home) != hosts.end()) return {home};
  std::vector<RankId> nearest;
  std::ranges::copy_if(hosts, std::back_inserter(nearest),
                       [&](RankId host) { return cluster.node_of(host) == cluster.node_of(home); });
  return nearest.empty() ? hosts : nearest;
}

}  // namespace

std::int32_t ReplicaChooser::num_alike_homes() const {
  if (!has_replicas_ || rule_ == ReplicaRule::kRandom) return cluster_.ep_size();
  return rule_ == ReplicaRule::kFewestRanks ? cluster_.ranks_per_node : 1;
}

ReplicaChooser::ReplicaChooser(const Placement& placement, const TrafficModel& traffic)
    : cluster_(traffic.cluster), rule_(traffic.replica_rule), seed_(traffic.seed) {
  check_cluster(cluster_);
  check_slots(placement);
  C2R_REQUIRE(placement.ep_size() == cluster_.ep_size(), kInvalidArgument,
              "the placement is for {} ranks, but the cluster has {}x{}", placement.ep_size(),
              cluster_.num_nodes, cluster_.ranks_per_node);
  hosts_ = ranks_of_experts(placement);
  for (const auto& hosts : hosts_) only_host_.push_back(hosts.size() > 1 ? kNoRank : hosts[0]);
  has_replicas_ = std::ranges::find(only_host_, kNoRank) != only_host_.end();
  if (!has_replicas_) return;
  if (rule_ == ReplicaRule::kLocalFirst) assign_local_first();
  if (rule_ == ReplicaRule::kFewestRanks) {
    load_ = {cluster_.ep_size(), cluster_.ep_size()};
    solver_.emplace(cluster_, placement.num_experts);
    for (std::int32_t e = 0; e < placement.num_experts; ++e) {
      std::vector<std::uint16_t> ranks;
      for (const RankId host : at(hosts_, e)) {
        ranks.push_back(static_cast<std::uint16_t>(index(host)));
      }
      solver_->set_hosts(e, ranks);
    }
  }
}

void ReplicaChooser::assign_local_first() {
  assigned_ = {cluster_.ep_size(), std::ssize(hosts_)};
  for (std::size_t e = 0; e < hosts_.size(); ++e) {
    // Ranks that choose among the same hosts are assigned together, or the assignment could not be
    // balanced.
    std::map<std::vector<RankId>, std::vector<RankId>> homes_of_hosts;
    for (std::int32_t home = 0; home < cluster_.ep_size(); ++home) {
      homes_of_hosts[nearest_hosts(hosts_[e], RankId{home}, cluster_)].push_back(RankId{home});
    }
    std::mt19937_64 rng(mix_bits(mix_bits(seed_) + e));
    for (const auto& [same_hosts, same_homes] : homes_of_hosts) {
      auto hosts = same_hosts, homes = same_homes;
      shuffle(std::span(hosts), rng);  // who is used once more than others
      shuffle(std::span(homes), rng);  // by whom
      for (std::size_t i = 0; i < homes.size(); ++i) {
        assigned_(std::int64_t(index(homes[i])), std::int64_t(e)) = hosts[i % hosts.size()];
      }
    }
  }
}

void ReplicaChooser::choose(std::span<const ExpertId> experts, RankId home, std::int64_t token,
                            std::span<RankId> served_by) {
  check_token(experts, served_by);
  C2R_REQUIRE(index(home) < std::size_t(cluster_.ep_size()), kInvalidArgument,
              "a token lives on rank {}, but the cluster has ranks 0 to {}",
              static_cast<std::int32_t>(home), cluster_.ep_size() - 1);
  if (has_replicas_ && rule_ == ReplicaRule::kFewestRanks) {
    find_covers(experts);
    return choose_cover(experts, home, served_by);
  }
  for (std::size_t i = 0; i < experts.size(); ++i) {
    if (experts[i] == kNoExpert) {
      served_by[i] = kNoRank;
    } else if (const RankId only = at(only_host_, experts[i]); only != kNoRank) {
      served_by[i] = only;
    } else if (rule_ == ReplicaRule::kLocalFirst) {
      served_by[i] = assigned_(std::int64_t(index(home)), std::int64_t(index(experts[i])));
    } else {
      const auto& hosts = at(hosts_, experts[i]);
      const auto draw = mix_bits(mix_bits(mix_bits(seed_) + static_cast<std::uint64_t>(token)) +
                                 index(experts[i]));
      served_by[i] = hosts[draw % hosts.size()];  // the bias is below replicas / 2^64
    }
  }
}

bool ReplicaChooser::choose_alike(std::span<const ExpertId> experts, std::int32_t home_step,
                                  std::span<RankId> served_by) {
  if (!has_memory()) return false;
  check_token(experts, served_by);
  C2R_REQUIRE(home_step >= 1, kInvalidArgument, "homes are {} apart, but must be at least 1",
              home_step);
  find_covers(experts);
  if (solver_->has_choice()) return false;
  choose_cover(experts, RankId{0}, served_by);
  for (std::int64_t home = home_step; home < cluster_.ep_size(); home += home_step) {
    const auto loads = load_.row(home);
    for (const std::uint16_t rank : chosen_ranks_) ++loads[rank];
  }
  return true;
}

void ReplicaChooser::check_token(std::span<const ExpertId> experts,
                                 std::span<const RankId> served_by) const {
  C2R_REQUIRE(experts.size() == served_by.size(), kInvalidArgument,
              "a token has {} experts, but there is room for {} ranks", experts.size(),
              served_by.size());
  for (const ExpertId e : experts) {
    C2R_REQUIRE(index(e) < hosts_.size() || e == kNoExpert, kInvalidArgument,
                "a token names expert {}, but there are {} experts, and -1 for none",
                static_cast<std::int32_t>(e), hosts_.size());
  }
}

void ReplicaChooser::find_covers(std::span<const ExpertId> experts) {
  if (std::ranges::equal(experts, last_experts_)) return;  // often one token from several homes
  last_experts_.assign(experts.begin(), experts.end());
  chosen_experts_.clear();
  for (const ExpertId e : experts) {
    if (e != kNoExpert) chosen_experts_.push_back(static_cast<std::uint16_t>(index(e)));
  }
  chosen_ranks_.resize(chosen_experts_.size());
  solver_->set_token(chosen_experts_);
}

void ReplicaChooser::choose_cover(std::span<const ExpertId> experts, RankId home,
                                  std::span<RankId> served_by) {
  const auto loads = load_.row(std::int64_t(index(home)));
  solver_->choose(loads, chosen_ranks_, cluster_.node_of(home));
  auto rank = chosen_ranks_.begin();
  for (std::size_t i = 0; i < experts.size(); ++i) {
    served_by[i] = kNoRank;
    if (experts[i] == kNoExpert) continue;
    ++loads[*rank];
    served_by[i] = RankId{*rank++};
  }
}

}  // namespace c2r
