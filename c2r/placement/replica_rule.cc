#include "c2r/placement/replica_rule.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "c2r/core/enum_names.h"
#include "c2r/core/error.h"
#include "c2r/core/rng.h"

namespace c2r {
namespace {

constexpr EnumName<ReplicaRule> kRules[] = {{ReplicaRule::kGreedyCover, "greedy-cover"},
                                            {ReplicaRule::kLocalFirst, "local-first"},
                                            {ReplicaRule::kRandom, "random"}};

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

std::string_view name_of(ReplicaRule rule) {
  return name_in(kRules, rule);
}

ReplicaRule parse_replica_rule(std::string_view name) {
  return parse_in(kRules, "a replica rule is", name);
}

ReplicaChooser::ReplicaChooser(const Placement& placement, const Cluster& cluster, ReplicaRule rule,
                               std::uint64_t seed)
    : cluster_(cluster), rule_(rule), seed_(seed) {
  check_cluster(cluster);
  check_placement(placement);
  C2R_REQUIRE(placement.ep_size() == cluster.ep_size(), kInvalidArgument,
              "the placement is for {} ranks, but the cluster has {}x{}", placement.ep_size(),
              cluster.num_nodes, cluster.ranks_per_node);
  hosts_ = ranks_of_experts(placement);
  has_replicas_ = std::ranges::any_of(hosts_, [](const auto& hosts) { return hosts.size() > 1; });
  if (!has_replicas_) return;
  const auto ep_size = static_cast<std::size_t>(cluster.ep_size());
  if (rule == ReplicaRule::kLocalFirst) deal_local_first();
  if (rule == ReplicaRule::kGreedyCover) {
    load_ = {cluster.ep_size(), cluster.ep_size()};
    covered_.resize(ep_size);
    is_node_used_.resize(static_cast<std::size_t>(cluster.num_nodes));
  }
}

void ReplicaChooser::deal_local_first() {
  dealt_ = {cluster_.ep_size(), std::ssize(hosts_)};
  for (std::size_t e = 0; e < hosts_.size(); ++e) {
    // Ranks that choose among the same hosts share one deal, or the deal could not be fair.
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
        dealt_(std::int64_t(index(homes[i])), std::int64_t(e)) = hosts[i % hosts.size()];
      }
    }
  }
}

void ReplicaChooser::choose(std::span<const ExpertId> experts, RankId home, std::int64_t token,
                            std::span<RankId> served_by) {
  C2R_ASSERT(experts.size() == served_by.size() && index(home) < std::size_t(cluster_.ep_size()));
  if (has_replicas_ && rule_ == ReplicaRule::kGreedyCover) {
    return choose_greedy_cover(experts, home, served_by);
  }
  for (std::size_t i = 0; i < experts.size(); ++i) {
    if (experts[i] == kNoExpert) {
      served_by[i] = kNoRank;
    } else if (const auto& hosts = hosts_[index(experts[i])]; hosts.size() == 1) {
      served_by[i] = hosts[0];
    } else if (rule_ == ReplicaRule::kLocalFirst) {
      served_by[i] = dealt_(std::int64_t(index(home)), std::int64_t(index(experts[i])));
    } else {
      const auto draw = mix_bits(mix_bits(mix_bits(seed_) + static_cast<std::uint64_t>(token)) +
                                 index(experts[i]));
      served_by[i] = hosts[draw % hosts.size()];  // the bias is below replicas / 2^64
    }
  }
}

void ReplicaChooser::choose_greedy_cover(std::span<const ExpertId> experts, RankId home,
                                         std::span<RankId> served_by) {
  std::ranges::fill(served_by, kNoRank);
  is_node_used_[static_cast<std::size_t>(cluster_.node_of(home))] = 1;
  for (;;) {
    const RankId best = best_cover(experts, home, served_by);
    if (best == kNoRank) break;
    is_node_used_[static_cast<std::size_t>(cluster_.node_of(best))] = 1;
    for (std::size_t i = 0; i < experts.size(); ++i) {
      if (experts[i] == kNoExpert || served_by[i] != kNoRank) continue;
      const auto& hosts = hosts_[index(experts[i])];
      if (std::ranges::find(hosts, best) == hosts.end()) continue;
      served_by[i] = best;
      ++load_(std::int64_t(index(home)), std::int64_t(index(best)));
    }
  }
  std::ranges::fill(is_node_used_, char{0});
}

// The next rank by the rule, or kNoRank if every expert is served.
RankId ReplicaChooser::best_cover(std::span<const ExpertId> experts, RankId home,
                                  std::span<const RankId> served_by) {
  const auto unserved_hosts = [&](const auto& visit) {
    for (std::size_t i = 0; i < experts.size(); ++i) {
      if (experts[i] == kNoExpert || served_by[i] != kNoRank) continue;
      for (const RankId host : hosts_[index(experts[i])]) visit(host);
    }
  };
  unserved_hosts([&](RankId host) { ++covered_[index(host)]; });
  RankId best = kNoRank;
  std::tuple<std::int32_t, bool, bool, std::int64_t, std::int32_t> best_key;
  unserved_hosts([&](RankId host) {
    const std::tuple key{covered_[index(host)], host == home,
                         is_node_used_[static_cast<std::size_t>(cluster_.node_of(host))] != 0,
                         -load_(std::int64_t(index(home)), std::int64_t(index(host))),
                         -static_cast<std::int32_t>(host)};
    if (best == kNoRank || key > best_key) best = host, best_key = key;
  });
  unserved_hosts([&](RankId host) { covered_[index(host)] = 0; });
  return best;
}

}  // namespace c2r
