// Tests of the greedy choice of replicas against its definition, and of its work on many ranks.
#include "c2r/placement/search/replicas/replica_fill.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <tuple>

#include "c2r/core/at.h"
#include "c2r/placement/search/optimize_testing_internal.h"

namespace c2r {
namespace {

using ExpertsOfRank = std::vector<std::vector<std::int32_t>>;

ExpertsOfRank contiguous_on(std::int32_t num_experts, std::int32_t ep_size) {
  ExpertsOfRank experts(static_cast<std::size_t>(ep_size));
  const std::int32_t base = (num_experts + ep_size - 1) / ep_size;
  for (std::int32_t e = 0; e < num_experts; ++e) at(experts, e / base).push_back(e);
  return experts;
}

// The definition: all gains are counted anew for each replica.
struct GreedyFill {
  const SetIndex& index;
  const Cluster& cluster;
  const SearchEnergy& energy;
  std::size_t capacity;
  ExpertsOfRank experts_of_rank;
  ExpertsOfRank hosts = {};   // of each expert, the first one first
  ExpertsOfRank served = {};  // the rank of each expert of each set
  bool may_share_nodes = false;

  std::int32_t node_of(std::int32_t rank) const { return cluster.node_of(RankId{rank}); }
  double load_of(std::int32_t rank) const {
    std::int64_t load = 0;
    for (std::int64_t set = 0; set < index.num_sets(); ++set) {
      load += index.weight(set) * std::ranges::count(at(served, set), rank);
    }
    return double(load);
  }
  bool is_allowed(std::int32_t e, std::int32_t rank) const {
    const auto& of = at(hosts, e);
    if (at(experts_of_rank, rank).size() == capacity) return false;
    if (std::ranges::count(of, rank) > 0) return false;
    const auto is_near = [&](std::int32_t host) { return node_of(host) == node_of(rank); };
    return may_share_nodes || std::ranges::none_of(of, is_near) ||
           std::ssize(of) >= cluster.num_nodes;
  }
  // The ranks, or nodes, that a token visits less if another rank serves one of its experts.
  template <class Place>
  bool saves(std::int64_t set, std::int32_t from, std::int32_t to, Place place) const {
    const auto num_at = [&](std::int32_t p) {
      return std::ranges::count(at(served, set), p, place);
    };
    return place(from) != place(to) && num_at(place(from)) == 1 && num_at(place(to)) > 0;
  }
  double gain(std::int32_t e, std::int32_t rank) const {
    std::int64_t ranks = 0, nodes = 0;
    for (const std::int32_t set : index.sets_of(e)) {
      const auto at_e = std::ranges::find(index.experts(set), e) - index.experts(set).begin();
      const std::int32_t from = at(at(served, set), at_e);
      const auto same = [](std::int32_t r) { return r; };
      const auto node = [&](std::int32_t r) { return node_of(r); };
      ranks += saves(set, from, rank, same) ? index.weight(set) : 0;
      nodes += saves(set, from, rank, node) ? index.weight(set) : 0;
    }
    const auto moved = double(std::max(ranks, nodes));
    const auto excess = [&](double load) { return std::max(0.0, load - energy.max_load); };
    const double to_load = load_of(rank), from_load = load_of(at(hosts, e)[0]);
    return energy.cost(ranks, nodes) +
           energy.load_penalty * (excess(to_load) - excess(to_load + moved) + excess(from_load) -
                                  excess(from_load - moved));
  }
  void add(std::int32_t e, std::int32_t rank) {
    at(experts_of_rank, rank).push_back(e);
    at(hosts, e).push_back(rank);
    for (const std::int32_t set : index.sets_of(e)) {
      const auto at_e = std::ranges::find(index.experts(set), e) - index.experts(set).begin();
      std::int32_t& from = at(at(served, set), at_e);
      const bool is_better =
          saves(set, from, rank, [](std::int32_t r) { return r; }) ||
          (energy.node_cost > 0 && saves(set, from, rank, [&](auto r) { return node_of(r); }));
      if (is_better) from = rank;
    }
  }
  Placement run() {
    hosts.resize(std::size_t(index.num_experts()));
    for (std::size_t rank = 0; rank < experts_of_rank.size(); ++rank) {
      for (const auto e : experts_of_rank[rank]) at(hosts, e).push_back(std::int32_t(rank));
    }
    for (std::int64_t set = 0; set < index.num_sets(); ++set) {
      auto& ranks = served.emplace_back();
      for (const std::uint16_t e : index.experts(set)) ranks.push_back(hosts[e][0]);
    }
    for (;;) {
      using Key = std::tuple<double, std::int32_t, double, std::int32_t>;
      std::optional<Key> best;
      for (std::int32_t e = 0; e < index.num_experts(); ++e) {
        const double share = double(index.load(e)) / double(at(hosts, e).size());
        for (std::int32_t rank = 0; rank < cluster.ep_size(); ++rank) {
          if (!is_allowed(e, rank)) continue;
          const Key key{-gain(e, rank), rank, -share, e};
          if (!best || key < *best) best = key;
        }
      }
      if (best) {
        add(std::get<3>(*best), std::get<1>(*best));
      } else if (!may_share_nodes) {
        may_share_nodes = true;
      } else {
        return placement_of_ranks(index.num_experts(), experts_of_rank);
      }
    }
  }
};

TEST(FillWithReplicas, IsGreedyAsDefined) {
  const Cluster clusters[] = {{1, 4}, {2, 2}, {6, 1}, {3, 3}, {1, 12}};
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    const Cluster cluster = clusters[seed % std::size(clusters)];
    const TokenSets sets = random_sets(8, 3, 80, seed);
    const SetIndex index(sets);
    SearchEnergy energy{.rank_cost = 1, .node_cost = cluster.ranks_per_node > 1 ? 4.0 : 0.0};
    if (seed % 2 == 1) energy.max_load = 1.1 * double(index.num_choices()) / cluster.ep_size();
    const auto start = contiguous_on(8, cluster.ep_size());
    const auto capacity = std::int32_t(start[0].size() + seed % 3);
    EXPECT_EQ(fill_with_replicas(index, cluster, energy, false, capacity, start),
              (GreedyFill{index, cluster, energy, std::size_t(capacity), start}.run()));
  }
}

// 64 experts x 1,024 ranks would be judged for each of 960 replicas, 63 million in all.
TEST(FillWithReplicas, SpreadsLoadOverAThousandRanksWithLittleWork) {
  const TokenSets sets = random_sets(64, 4, 2000, 1);
  const SetIndex index(sets);
  const Cluster cluster{.num_nodes = 1024, .ranks_per_node = 1};
  std::int64_t num_judged = 0;
  const Placement filled = fill_with_replicas(index, cluster, {.rank_cost = 1}, false, 1,
                                              contiguous_on(64, 1024), &num_judged);
  EXPECT_LT(num_judged, 300'000);
  double most = 0;
  for (std::int32_t e = 0; e < 64; ++e) {
    const auto replicas = std::ranges::count(filled.slots.all(), ExpertId{e});
    most = std::max(most, double(index.load(e)) / double(replicas));
  }
  EXPECT_LT(most, 1.15 * double(index.num_choices()) / 1024) << "load of a replica";
}

}  // namespace
}  // namespace c2r
