#include "c2r/placement/replica_rule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

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
       {ReplicaRule::kGreedyCover, ReplicaRule::kLocalFirst, ReplicaRule::kRandom}) {
    EXPECT_EQ(parse_replica_rule(name_of(rule)), rule);
  }
  EXPECT_EQ(error_of([] { parse_replica_rule("static"); }),
            "a replica rule is greedy-cover, local-first or random; not 'static'");
}

TEST(GreedyCover, BreaksTiesAsDocumented) {
  ReplicaChooser chooser(kSmall, kTwoByTwo, ReplicaRule::kGreedyCover, 0);
  EXPECT_EQ(served(chooser, {0, 1}, 2), (std::vector{2, 2})) << "home before lower rank";
  EXPECT_EQ(served(chooser, {0, 1}, 1), (std::vector{0, 0})) << "home node";
  EXPECT_EQ(served(chooser, {0, 1}, 3), (std::vector{2, 2})) << "home node before lower rank";
  // Expert 0 is in the home node and in that of rank 3, which are as good: rank 0 has served 2
  // choices of this home, rank 2 none.
  EXPECT_EQ(served(chooser, {4, 5, 0}, 1), (std::vector{3, 3, 2}));
  EXPECT_EQ(served(chooser, {4, -1, 5}, 0), (std::vector{3, -1, 3}));
}

TEST(GreedyCover, PrefersAUsedNodeThenLessLoadThenTheLowerRank) {
  // 3 nodes of 1 rank: expert 0 on ranks 1 and 2, the rest alone.
  const Cluster cluster = {.num_nodes = 3, .ranks_per_node = 1};
  ReplicaChooser chooser(make_placement(4, {{1, 2}, {0, 3}, {0, 1}}), cluster,
                         ReplicaRule::kGreedyCover, 0);
  EXPECT_EQ(served(chooser, {0}, 0), (std::vector{1})) << "all equal: the lower rank";
  EXPECT_EQ(served(chooser, {0}, 0), (std::vector{2})) << "rank 1 has load 1 from this home";
  EXPECT_EQ(served(chooser, {0}, 0), (std::vector{1}));
  EXPECT_EQ(served(chooser, {3}, 0), (std::vector{1}));
  EXPECT_EQ(served(chooser, {0}, 0), (std::vector{2})) << "loads 3 and 1";

  // 3 nodes of 2: expert 2 is on ranks 0 and 5, expert 1 on ranks 1 and 4, expert 3 on rank 3.
  const Placement spread = make_placement(4, {{2}, {1}, {0}, {3}, {1}, {2}});
  const Cluster nodes = {.num_nodes = 3, .ranks_per_node = 2};
  ReplicaChooser other(spread, nodes, ReplicaRule::kGreedyCover, 0);
  EXPECT_EQ(served(other, {0, 1}, 0), (std::vector{2, 1})) << "rank 1 is in the home node";
  EXPECT_EQ(served(other, {3, 2}, 4), (std::vector{3, 5})) << "home node before rank 0";
}

TEST(LocalFirst, TakesTheNearestReplicaAndDealsTheRestFairly) {
  ReplicaChooser chooser(kSmall, kTwoByTwo, ReplicaRule::kLocalFirst, 7);
  EXPECT_EQ(served(chooser, {0, 1, 4}, 0), (std::vector{0, 0, 3}));
  EXPECT_EQ(served(chooser, {0, 1, 4}, 1), (std::vector{0, 0, 3}));
  EXPECT_EQ(served(chooser, {0, 1, 4}, 3), (std::vector{2, 2, 3}));

  // 8 nodes of 1 rank; expert 0 on ranks 0, 1, 2: the other five use them 2, 2 and 1 times.
  Placement placement = make_placement(6, {{0}, {0}, {0}, {1}, {2}, {3}, {4}, {5}});
  const Cluster cluster = {.num_nodes = 8, .ranks_per_node = 1};
  std::set<std::map<int, int>> seen;
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    ReplicaChooser deal(placement, cluster, ReplicaRule::kLocalFirst, seed);
    std::map<int, int> users;
    for (int home = 3; home < 8; ++home) {
      const int rank = served(deal, {0}, home, 1)[0];
      ++users[rank];
      EXPECT_EQ(served(deal, {0}, home, 2)[0], rank) << "fixed for a source rank";
    }
    EXPECT_EQ(users.size(), 3u);
    for (const auto& [rank, count] : users) EXPECT_LE(count, 2) << "rank " << rank;
    seen.insert(users);
  }
  EXPECT_EQ(seen.size(), 3u) << "which rank is used less depends on the seed";
}

TEST(RandomRule, IsRepeatableAndEven) {
  ReplicaChooser chooser(kSmall, kTwoByTwo, ReplicaRule::kRandom, 1);
  int on_rank_2 = 0;
  for (std::int64_t token = 0; token < 1000; ++token) {
    const auto ranks = served(chooser, {0, 5}, 0, token);
    EXPECT_EQ(ranks, served(chooser, {0, 5}, 3, token)) << "whatever the home";
    EXPECT_EQ(ranks[1], 3);
    on_rank_2 += ranks[0] == 2;
  }
  EXPECT_NEAR(on_rank_2, 500, 5 * 15.8);  // 5 standard deviations of a fair coin
}

TEST(ReplicaRule, ServesEveryChoiceFromAHostAndCoversGreedily) {
  for (unsigned seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    std::mt19937_64 rng(seed);
    const Cluster cluster = {.num_nodes = 1 + int(seed % 3), .ranks_per_node = 1 + int(seed % 4)};
    const Placement placement = random_placement(3 + int(seed % 11), cluster.ep_size(), 2, rng);
    const auto hosts = ranks_of_experts(placement);
    for (const auto rule :
         {ReplicaRule::kGreedyCover, ReplicaRule::kLocalFirst, ReplicaRule::kRandom}) {
      ReplicaChooser chooser(placement, cluster, rule, seed);
      for (std::int64_t token = 0; token < 20; ++token) {
        const auto experts = testing::random_choices(placement.num_experts, 3, rng);
        std::vector<RankId> ranks(experts.size());
        chooser.choose(experts, RankId{int(token) % cluster.ep_size()}, token, ranks);
        for (std::size_t i = 0; i < experts.size(); ++i) {
          if (experts[i] == kNoExpert) {
            EXPECT_EQ(ranks[i], kNoRank);
          } else {
            EXPECT_EQ(std::ranges::count(hosts[index(experts[i])], ranks[i]), 1);
          }
        }
      }
    }
  }
}

TEST(ReplicaRule, RefusesAPlacementForAnotherCluster) {
  EXPECT_EQ(error_of([] {
              ReplicaChooser(kSmall, {.num_nodes = 1, .ranks_per_node = 2}, ReplicaRule::kRandom,
                             0);
            }),
            "the placement is for 4 ranks, but the cluster has 1x2");
}

}  // namespace
}  // namespace c2r
