// Tests of the replica rules against their definitions, by brute force.
#include "c2r/placement/cost/replica_rule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <tuple>

#include "c2r/core/at.h"
#include "c2r/core/testing.h"
#include "c2r/placement/testing_internal.h"

namespace c2r {
namespace {

using testing::error_of;
using testing::make_placement;
using testing::random_placement;

std::vector<int> served(ReplicaChooser& chooser, std::initializer_list<int> experts, int home,
                        std::int64_t token = 0) {
  std::vector<ExpertId> ids;
  for (const int e : experts) ids.push_back(ExpertId{e});
  std::vector<RankId> ranks(ids.size());
  chooser.choose(ids, RankId{home}, token, ranks);
  std::vector<int> result;
  result.reserve(ranks.size());
  for (const RankId r : ranks) result.push_back(static_cast<int>(r));
  return result;
}

// 2 nodes of 2 ranks; experts 0 and 1 on ranks 0 and 2, experts 2 to 5 on one rank each.
const Placement kSmall = make_placement(6, {{0, 1}, {2, 3}, {0, 1}, {4, 5}});
const Cluster kTwoByTwo = {.num_nodes = 2, .ranks_per_node = 2};

TEST(ReplicaRule, HasANameThatParsesBack) {
  for (const auto rule :
       {ReplicaRule::kFewestRanks, ReplicaRule::kLocalFirst, ReplicaRule::kRandom}) {
    EXPECT_EQ(parse_replica_rule(name_of(rule)), rule);
  }
  EXPECT_EQ(error_of([] { parse_replica_rule("static"); }),
            "a replica rule is fewest-ranks, local-first or random; not 'static'");
}

// The rule, word for word: the best of all choices of hosts. Counts the choice in `loads`.
std::vector<RankId> fewest_ranks_by_definition(const std::vector<std::vector<RankId>>& hosts,
                                               const Cluster& cluster, RankId home,
                                               std::vector<std::int64_t>& loads) {
  using Key = std::tuple<std::size_t, std::size_t, bool, std::int64_t, std::set<RankId>,
                         std::vector<RankId>>;
  std::optional<Key> best;
  std::vector<RankId> choice(hosts.size());
  const std::function<void(std::size_t)> choose_from = [&](std::size_t i) {
    if (i < hosts.size()) {
      for (const RankId rank : hosts[i]) choice[i] = rank, choose_from(i + 1);
      return;
    }
    std::set<int> nodes;
    std::int64_t load = 0;
    for (const RankId r : choice) nodes.insert(cluster.node_of(r)), load += at(loads, r);
    const std::set<RankId> ranks(choice.begin(), choice.end());
    const Key key{ranks.size(), nodes.size(), !nodes.contains(cluster.node_of(home)),
                  load,         ranks,        choice};
    if (!best || key < *best) best = key;
  };
  choose_from(0);
  for (const RankId rank : std::get<5>(*best)) ++at(loads, rank);
  return std::get<5>(*best);
}

TEST(FewestRanks, IsTheDefinitionOnRandomCases) {
  for (unsigned seed = 0; seed < 100; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    std::mt19937_64 rng(seed);
    const Cluster cluster = {.num_nodes = 1 + int(seed % 4),
                             .ranks_per_node = 1 + int(seed / 4 % 4)};
    const auto top_k = std::int32_t(1 + seed % 5);
    const Placement placement =
        random_placement(top_k + int(seed % 7), cluster.ep_size(), 1 + int(seed % 3), rng);
    const auto hosts = ranks_of_experts(placement);
    ReplicaChooser chooser(placement, {.cluster = cluster});
    std::vector<std::vector<std::int64_t>> loads(
        std::size_t(cluster.ep_size()), std::vector<std::int64_t>(std::size_t(cluster.ep_size())));
    for (std::int64_t token = 0; token < 10; ++token) {
      const auto experts = testing::random_choices(placement.num_experts, top_k, rng);
      const RankId home{int(uniform_below(std::uint64_t(cluster.ep_size()), rng))};
      std::vector<RankId> ranks(experts.size());
      chooser.choose(experts, home, token, ranks);
      std::vector<std::vector<RankId>> chosen_hosts;
      for (const ExpertId e : experts) {
        if (e != kNoExpert) chosen_hosts.push_back(at(hosts, e));
      }
      std::erase(ranks, kNoRank);
      EXPECT_EQ(ranks, fewest_ranks_by_definition(chosen_hosts, cluster, home, at(loads, home)));
    }
  }
}

// 33 nodes of 4 ranks are more than a word has bits: hosts are numbered anew for each token.
TEST(FewestRanks, IsTheDefinitionOnManyRanks) {
  const Cluster cluster = {.num_nodes = 33, .ranks_per_node = 4};
  std::mt19937_64 rng(1);
  const Placement placement = random_placement(132, cluster.ep_size(), 2, rng);
  const auto hosts = ranks_of_experts(placement);
  ReplicaChooser chooser(placement, {.cluster = cluster});
  std::vector<std::int64_t> loads(std::size_t(cluster.ep_size()));
  for (std::int64_t token = 0; token < 100; ++token) {
    auto experts = testing::random_choices(placement.num_experts, 6, rng);
    std::erase(experts, kNoExpert);
    std::vector<RankId> ranks(experts.size());
    chooser.choose(experts, RankId{70}, token, ranks);
    std::vector<std::vector<RankId>> chosen_hosts;
    for (const ExpertId e : experts) chosen_hosts.push_back(at(hosts, e));
    EXPECT_EQ(ranks, fewest_ranks_by_definition(chosen_hosts, cluster, RankId{70}, loads));
  }
}

// A greedy cover would take rank 0 for experts 0 to 3 first, and then need two more.
// 96 nodes of one rank host each of 24 experts four times, and no two of them together: every
// choice of hosts needs as many ranks.
TEST(FewestRanks, IsTheDefinitionWhereNoRankHostsTwo) {
  for (const Cluster& cluster : {Cluster{.num_nodes = 96, .ranks_per_node = 1},
                                 Cluster{.num_nodes = 1, .ranks_per_node = 96}}) {
    Placement placement{.num_experts = 24, .slots = {96, 1}};
    for (std::int32_t rank = 0; rank < 96; ++rank) placement.slots(rank, 0) = ExpertId{rank % 24};
    const auto hosts = ranks_of_experts(placement);
    ReplicaChooser chooser(placement, {.cluster = cluster});
    std::map<RankId, std::vector<std::int64_t>> loads;
    std::mt19937_64 rng(3);
    for (std::int64_t token = 0; token < 300; ++token) {
      const auto experts = testing::random_choices(24, 3, rng);
      const RankId home{int(12 * uniform_below(8, rng))};
      std::vector<RankId> ranks(experts.size());
      chooser.choose(experts, home, token, ranks);
      std::vector<std::vector<RankId>> chosen_hosts;
      for (const ExpertId e : experts) {
        if (e != kNoExpert) chosen_hosts.push_back(at(hosts, e));
      }
      std::erase(ranks, kNoRank);
      auto& of_home = loads.try_emplace(home, 96).first->second;
      EXPECT_EQ(ranks, fewest_ranks_by_definition(chosen_hosts, cluster, home, of_home));
    }
  }
}

TEST(FewestRanks, NeedsFewerThanAGreedyCover) {
  ReplicaChooser chooser(make_placement(8, {{0, 1, 2, 3}, {0, 1, 4, 6}, {2, 3, 5, 7}}),
                         {.cluster = {.ranks_per_node = 3}});
  EXPECT_EQ(served(chooser, {0, 1, 2, 3, 4, 5}, 0), (std::vector{1, 1, 2, 2, 1, 2}));
}

TEST(FewestRanks, BreaksTiesAsDocumented) {
  ReplicaChooser chooser(kSmall, {.cluster = kTwoByTwo});
  EXPECT_EQ(served(chooser, {0, 1}, 3), (std::vector{2, 2})) << "home node before lower rank";
  EXPECT_EQ(served(chooser, {0, 1}, 1), (std::vector{0, 0}));
  EXPECT_EQ(served(chooser, {0, 4}, 1), (std::vector{2, 3})) << "one node before the home node";
  EXPECT_EQ(served(chooser, {4, -1, 5}, 0), (std::vector{3, -1, 3}));

  ReplicaChooser balanced(make_placement(3, {{0, 1}, {0, 2}}), {.cluster = {.ranks_per_node = 2}});
  EXPECT_EQ(served(balanced, {0}, 0), (std::vector{0})) << "all equal: the lower rank";
  EXPECT_EQ(served(balanced, {0}, 0), (std::vector{1})) << "rank 0 has load 1 from this home";
  EXPECT_EQ(served(balanced, {0}, 1), (std::vector{0})) << "this home has given none";
}

TEST(LocalFirst, TakesTheNearestReplicaAndDealsTheRestFairly) {
  ReplicaChooser chooser(
      kSmall, {.cluster = kTwoByTwo, .replica_rule = ReplicaRule::kLocalFirst, .seed = 7});
  EXPECT_EQ(served(chooser, {0, 1, 4}, 0), (std::vector{0, 0, 3}));
  EXPECT_EQ(served(chooser, {0, 1, 4}, 1), (std::vector{0, 0, 3}));
  EXPECT_EQ(served(chooser, {0, 1, 4}, 3), (std::vector{2, 2, 3}));

  // 8 nodes of 1 rank; expert 0 on ranks 0, 1, 2: the other five use them 2, 2 and 1 times.
  Placement placement = make_placement(6, {{0}, {0}, {0}, {1}, {2}, {3}, {4}, {5}});
  const Cluster cluster = {.num_nodes = 8, .ranks_per_node = 1};
  std::set<std::map<int, int>> seen;
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    ReplicaChooser other(
        placement, {.cluster = cluster, .replica_rule = ReplicaRule::kLocalFirst, .seed = seed});
    std::map<int, int> users;
    for (int home = 3; home < 8; ++home) {
      const int rank = served(other, {0}, home, 1)[0];
      ++users[rank];
      EXPECT_EQ(served(other, {0}, home, 2)[0], rank) << "fixed for a source rank";
    }
    EXPECT_EQ(users.size(), 3u);
    for (const auto& [rank, count] : users) EXPECT_LE(count, 2) << "rank " << rank;
    seen.insert(users);
  }
  EXPECT_EQ(seen.size(), 3u) << "which rank is used less depends on the seed";
}

TEST(RandomRule, IsRepeatableAndEven) {
  ReplicaChooser chooser(kSmall,
                         {.cluster = kTwoByTwo, .replica_rule = ReplicaRule::kRandom, .seed = 1});
  int on_rank_2 = 0;
  for (std::int64_t token = 0; token < 1000; ++token) {
    const auto ranks = served(chooser, {0, 5}, 0, token);
    EXPECT_EQ(ranks, served(chooser, {0, 5}, 3, token)) << "whatever the home";
    EXPECT_EQ(ranks[1], 3);
    on_rank_2 += ranks[0] == 2;
  }
  EXPECT_NEAR(on_rank_2, 500, 5 * 15.8);  // 5 standard deviations of a fair coin
}

TEST(ReplicaRule, ServesEveryChoiceFromAHost) {
  for (unsigned seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    std::mt19937_64 rng(seed);
    const Cluster cluster = {.num_nodes = 1 + int(seed % 3), .ranks_per_node = 1 + int(seed % 4)};
    const Placement placement = random_placement(3 + int(seed % 11), cluster.ep_size(), 2, rng);
    const auto hosts = ranks_of_experts(placement);
    for (const auto rule :
         {ReplicaRule::kFewestRanks, ReplicaRule::kLocalFirst, ReplicaRule::kRandom}) {
      ReplicaChooser chooser(placement, {.cluster = cluster, .replica_rule = rule, .seed = seed});
      for (std::int64_t token = 0; token < 20; ++token) {
        const auto experts = testing::random_choices(placement.num_experts, 3, rng);
        std::vector<RankId> ranks(experts.size());
        chooser.choose(experts, RankId{int(token) % cluster.ep_size()}, token, ranks);
        for (std::size_t i = 0; i < experts.size(); ++i) {
          if (experts[i] == kNoExpert) {
            EXPECT_EQ(ranks[i], kNoRank);
          } else {
            EXPECT_EQ(std::ranges::count(at(hosts, experts[i]), ranks[i]), 1);
          }
        }
      }
    }
  }
}

TEST(ReplicaRule, RefusesAPlacementForAnotherCluster) {
  EXPECT_EQ(
      error_of([] { ReplicaChooser(kSmall, {.cluster = {.num_nodes = 1, .ranks_per_node = 2}}); }),
      "the placement is for 4 ranks, but the cluster has 1x2");
}

}  // namespace
}  // namespace c2r
