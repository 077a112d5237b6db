// Tests of reach and volume against their definitions on random cases.
#include "c2r/placement/cost/volume.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "c2r/collaboration/metrics.h"
#include "c2r/core/at.h"
#include "c2r/core/testing.h"
#include "c2r/io/file.h"
#include "c2r/placement/optimize.h"
#include "c2r/placement/testing_internal.h"
#include "c2r/trace/trace_chunks.h"

namespace c2r {
namespace {

using testing::error_of;
using testing::make_placement;
using testing::random_placement;

constexpr CopyMode kModes[] = {CopyMode::kPerExpert, CopyMode::kPerRank, CopyMode::kPerNode,
                               CopyMode::kAllGather};
constexpr ReplicaRule kRules[] = {ReplicaRule::kFewestRanks, ReplicaRule::kLocalFirst,
                                  ReplicaRule::kRandom};

Matrix<ExpertId> choices_of(std::initializer_list<std::initializer_list<int>> tokens) {
  Matrix<ExpertId> topk_idx(std::ssize(tokens), std::ssize(*tokens.begin()));
  auto choice = topk_idx.all().begin();
  for (const auto& token : tokens) {
    for (const int e : token) *choice++ = ExpertId{e};
  }
  return topk_idx;
}

Reach reach_of(const Matrix<ExpertId>& topk_idx, const Placement& placement,
               const TrafficModel& traffic, std::span<const RankId> homes = {}) {
  ReachCounter counter(placement, traffic);
  counter.add(topk_idx, homes);
  return counter.finish();
}

Volume volume_in(CopyMode mode, const Reach& reach, const TrafficModel& traffic) {
  return volume_of(reach, with_copy_mode(traffic, mode));
}

// The definition: the copies of one token, as links, by what volume.h says in words.
void add_by_definition(CopyMode mode, const Cluster& cluster, int home,
                       const std::vector<RankId>& served_by, Matrix<std::int64_t>& links) {
  std::set<int> ranks, nodes;
  for (const RankId rank : served_by) {
    if (rank == kNoRank) continue;
    if (mode == CopyMode::kPerExpert) ++links(home, int(rank));
    ranks.insert(int(rank)), nodes.insert(cluster.node_of(rank));
  }
  const int per_node = cluster.ranks_per_node;
  const auto relay = [&](int node) { return node * per_node + home % per_node; };
  if (mode == CopyMode::kPerRank)
    for (const int r : ranks) ++links(home, r);
  if (mode == CopyMode::kPerNode)
    for (const int r : ranks) ++links(relay(r / per_node), r);
  if (mode == CopyMode::kPerNode)
    for (const int n : nodes)
      if (n != home / per_node) ++links(home, relay(n));
  if (mode == CopyMode::kAllGather)
    for (int r = 0; r < cluster.ep_size(); ++r) ++links(home, r);
}

// Two nodes of two ranks, experts 0 1 | 2 3 | 4 5 | 6 7. Token 0 lives on rank 0 and chooses 0, 1,
// 6; token 1 lives on rank 1 and chooses 4, 5, 7.
TEST(Volume, CountsAWorkedExample) {
  const Placement placement = place_contiguous(8, 4);
  const TrafficModel traffic = {.cluster = {.num_nodes = 2, .ranks_per_node = 2},
                                .homes = Homes::kSequences};
  const Reach reach = reach_of(choices_of({{0, 1, 6}, {4, 5, 7}}), placement, traffic,
                               std::vector{RankId{0}, RankId{1}});

  const Volume per_expert = volume_in(CopyMode::kPerExpert, reach, traffic);
  EXPECT_EQ(per_expert.local_copies, 2);       // token 0 to experts 0 and 1
  EXPECT_EQ(per_expert.inter_node_copies, 4);  // 6; 4, 5, 7
  EXPECT_EQ(per_expert.link_copies(1, 2), 2);
  EXPECT_EQ(per_expert.choices, (std::vector<std::int64_t>{2, 0, 2, 2}));

  const Volume per_rank = volume_in(CopyMode::kPerRank, reach, traffic);
  EXPECT_EQ(per_rank.local_copies, 1);
  EXPECT_EQ(per_rank.inter_node_copies, 3);
  EXPECT_EQ(per_rank.intra_node_copies, 0);
  EXPECT_EQ(per_rank.sent, (std::vector<std::int64_t>{1, 2, 0, 0}));
  EXPECT_EQ(per_rank.received, (std::vector<std::int64_t>{0, 0, 1, 2}));

  // Token 0: 0 -> relay 2 -> 3, and itself. Token 1: 1 -> relay 3, which keeps one and gives 2 one.
  const Volume per_node = volume_in(CopyMode::kPerNode, reach, traffic);
  EXPECT_EQ(per_node.inter_node_copies, 2);
  EXPECT_EQ(per_node.intra_node_copies, 2);
  EXPECT_EQ(per_node.local_copies, 2);
  EXPECT_EQ(per_node.total_copies(), 6);
  EXPECT_EQ(per_node.copies_to_experts, per_rank.total_copies()) << "forwarding adds none";

  const Volume all_gather = volume_in(CopyMode::kAllGather, reach, traffic);
  EXPECT_EQ(all_gather.wire_copies(), 2 * 3);
  EXPECT_EQ(all_gather.per_token(all_gather.wire_copies()), 3.0);

  const CopyFormat format = {.hidden = 100, .dispatch_element_bytes = 1};
  EXPECT_EQ(dispatch_bytes(per_rank, format),
            (VolumeBytes{.inter_node_bytes = 300, .local_bytes = 100}));
  EXPECT_EQ(combine_bytes(per_rank, format).wire_bytes(), 600);
  EXPECT_EQ(combine_bytes(per_rank, format).total_bytes(), 800);
}

// Without a rule, the library predicts what the optimizer counts.
TEST(Volume, IsOfTheOptimizersRuleWhereNothingElseIsSaid) {
  const Placement placement = make_placement(3, {{0, 1}, {1, 2}, {2, 0}});
  const auto tokens = choices_of({{0, 1}, {1, 2}, {0, 2}, {2, 0}});
  const Cluster three = {.ranks_per_node = 3};
  TokenSetBuilder sets(3, 2);
  sets.add(tokens);
  const TrafficModel traffic = {.cluster = three};
  const Volume volume = volume_of(reach_of(tokens, placement, traffic), traffic);
  EXPECT_EQ(volume.per_token(volume.total_copies()), 1);
  EXPECT_EQ(measure_placement(sets.finish(), three, {}, placement).copies_per_token, 1);
}

TEST(Volume, IsPerNodeWhereNodesHaveFastLinksInside) {
  EXPECT_EQ(default_copy_mode({.num_nodes = 2, .ranks_per_node = 4}), CopyMode::kPerNode);
  EXPECT_EQ(default_copy_mode({.num_nodes = 1, .ranks_per_node = 4}), CopyMode::kPerRank);
  EXPECT_EQ(default_copy_mode({.num_nodes = 4, .ranks_per_node = 1}), CopyMode::kPerRank);
}

// Token {0, 1} reaches 1 rank, token {0, 2} reaches 2; each copy stays home once in two.
TEST(Volume, OfUniformHomesIsTheExactExpectation) {
  const TrafficModel traffic = {.cluster = {.ranks_per_node = 2}};
  const Volume volume =
      volume_of(reach_of(choices_of({{0, 1}, {0, 2}}), place_contiguous(4, 2), traffic), traffic);
  EXPECT_EQ(volume.denominator, 2);
  EXPECT_EQ(volume.total_copies(), 3 * 2);
  EXPECT_EQ(volume.wire_copies(), 3);  // 1.5 copies, each leaving with probability 1 - 1/2
  EXPECT_EQ(volume.per_token(volume.wire_copies()), 0.75);
  EXPECT_EQ(imbalance(volume.choices), 1.5);
}

struct RandomCase {
  Cluster cluster;
  Placement placement;
  Matrix<ExpertId> topk_idx;
  std::vector<RankId> homes;
};

RandomCase random_case(unsigned seed, std::int32_t top_k, int redundant_slots) {
  std::mt19937_64 rng(seed);
  RandomCase c{
      .cluster = {.num_nodes = 1 + int(seed % 3), .ranks_per_node = 1 + int(seed / 3 % 4)}};
  c.placement = random_placement(top_k + int(seed % 9), c.cluster.ep_size(), redundant_slots, rng);
  c.topk_idx = {std::int64_t(seed % 40), top_k};
  for (std::int64_t t = 0; t < c.topk_idx.rows(); ++t) {
    std::ranges::copy(testing::random_choices(c.placement.num_experts, top_k, rng),
                      c.topk_idx.row(t).begin());
    c.homes.push_back(RankId{int(uniform_below(std::uint64_t(c.cluster.ep_size()), rng))});
  }
  return c;
}

// What the optimizer takes for granted is what the rule does: distinct ranks and nodes a token.
TEST(Volume, OfFewestRanksIsWhatTheOptimizerCounts) {
  for (unsigned seed = 0; seed < 60; ++seed) {
    const RandomCase c = random_case(seed, 1 + int(seed % 5), int(seed % 3));
    TokenSetBuilder sets(c.placement.num_experts, std::int32_t(c.topk_idx.cols()));
    sets.add(c.topk_idx);
    const OptimizedPlacement counted = measure_placement(sets.finish(), c.cluster, {}, c.placement);
    for (const auto homes : {Homes::kSequences, Homes::kUniform}) {
      const TrafficModel traffic = {.cluster = c.cluster, .homes = homes};
      const Reach reach = reach_of(c.topk_idx, c.placement, traffic,
                                   homes == Homes::kSequences ? c.homes : std::vector<RankId>());
      const Volume volume = volume_in(CopyMode::kPerRank, reach, traffic);
      const auto on_nodes = reach.tokens_on_node.all();
      EXPECT_DOUBLE_EQ(volume.per_token(volume.total_copies()), counted.copies_per_token);
      EXPECT_DOUBLE_EQ(
          volume.per_token(std::accumulate(on_nodes.begin(), on_nodes.end(), std::int64_t{0})),
          counted.node_copies_per_token);
    }
  }
}

// Every home that the model gives a token, once; with the denominator that this implies.
Matrix<std::int64_t> links_by_definition(const RandomCase& c, const TrafficModel& traffic,
                                         CopyMode mode) {
  Matrix<std::int64_t> links(c.cluster.ep_size(), c.cluster.ep_size());
  ReplicaChooser chooser(c.placement, traffic);
  std::vector<RankId> served_by(static_cast<std::size_t>(c.topk_idx.cols()));
  for (std::int64_t t = 0; t < c.topk_idx.rows(); ++t) {
    for (int home = 0; home < c.cluster.ep_size(); ++home) {
      if (traffic.homes == Homes::kSequences && at(c.homes, t) != RankId{home}) continue;
      chooser.choose(c.topk_idx.row(t), RankId{home}, t, served_by);
      add_by_definition(mode, c.cluster, home, served_by, links);
    }
  }
  return links;
}

TEST(Volume, MatchesTheDefinitionOnRandomCases) {
  for (unsigned seed = 0; seed < 120; ++seed) {
    const RandomCase c = random_case(seed, 1 + int(seed % 5), int(seed % 3));
    for (const auto homes : {Homes::kSequences, Homes::kUniform}) {
      for (const auto rule : kRules) {
        const TrafficModel traffic = {
            .cluster = c.cluster, .replica_rule = rule, .seed = seed, .homes = homes};
        const Reach reach = reach_of(c.topk_idx, c.placement, traffic,
                                     homes == Homes::kSequences ? c.homes : std::vector<RankId>());
        for (const auto mode : kModes) {
          SCOPED_TRACE(
              fmt::format("seed {} {} {} {}", seed, name_of(homes), name_of(rule), name_of(mode)));
          const Volume volume = volume_in(mode, reach, traffic);
          EXPECT_EQ(volume.link_copies, links_by_definition(c, traffic, mode));
          EXPECT_EQ(volume.num_tokens, c.topk_idx.rows());
          if (mode == CopyMode::kPerNode && c.cluster.num_nodes == 1) {
            EXPECT_EQ(volume.link_copies,
                      volume_in(CopyMode::kPerRank, reach, traffic).link_copies);
          }
          EXPECT_EQ(std::accumulate(volume.sent.begin(), volume.sent.end(), std::int64_t{0}),
                    volume.wire_copies());
          EXPECT_EQ(
              std::accumulate(volume.received.begin(), volume.received.end(), std::int64_t{0}),
              volume.wire_copies());
        }
      }
    }
  }
}

TEST(Volume, FromPairsEqualsTheTokensWhereTopKIsTwo) {
  for (unsigned seed = 0; seed < 120; ++seed) {
    const auto top_k = std::int32_t(1 + seed % 2);
    const RandomCase c = random_case(seed, top_k, int(seed % 3));
    CollaborationMatrix counts(c.placement.num_experts, c.placement.num_experts);
    add_collaboration(c.topk_idx, counts);
    const TrafficModel traffic = {
        .cluster = c.cluster, .replica_rule = ReplicaRule::kLocalFirst, .seed = seed};
    const Reach from_pairs =
        reach_from_pairs(counts, c.topk_idx.rows(), top_k, c.placement, traffic);
    EXPECT_EQ(from_pairs, reach_of(c.topk_idx, c.placement, traffic)) << "seed " << seed;
  }
}

TEST(Volume, FromPairsIsALabelledLowerBoundWhereTopKIsMore) {
  for (unsigned seed = 0; seed < 120; ++seed) {
    const RandomCase c = random_case(seed, 3 + int(seed % 4), 0);
    CollaborationMatrix counts(c.placement.num_experts, c.placement.num_experts);
    add_collaboration(c.topk_idx, counts);
    const TrafficModel traffic = {.cluster = c.cluster, .replica_rule = ReplicaRule::kLocalFirst};
    const Reach exact = reach_of(c.topk_idx, c.placement, traffic);
    const Reach estimate = reach_from_pairs(counts, c.topk_idx.rows(),
                                            std::int32_t(c.topk_idx.cols()), c.placement, traffic);
    EXPECT_TRUE(volume_in(CopyMode::kPerRank, exact, traffic).is_exact);
    EXPECT_FALSE(volume_in(CopyMode::kPerRank, estimate, traffic).is_exact);
    EXPECT_FALSE(volume_in(CopyMode::kPerNode, estimate, traffic).is_exact);
    EXPECT_EQ(volume_in(CopyMode::kPerExpert, estimate, traffic),
              volume_in(CopyMode::kPerExpert, exact, traffic));
    EXPECT_EQ(volume_in(CopyMode::kAllGather, estimate, traffic),
              volume_in(CopyMode::kAllGather, exact, traffic));
    for (std::int64_t r = 0; r < c.cluster.ep_size(); ++r) {
      EXPECT_LE(estimate.tokens_on_rank(0, r), exact.tokens_on_rank(0, r)) << "seed " << seed;
    }
  }
}

TEST(Volume, PutsSequencesOnRanksInTurn) {
  const std::vector<std::int64_t> starts = {0, 2, 3, 3};
  EXPECT_EQ(homes_of_sequences(starts, 5, 2, std::vector<TokenRange>{{0, 5}}),
            (std::vector{RankId{0}, RankId{0}, RankId{1}, RankId{1}, RankId{1}}));
  EXPECT_TRUE(homes_of_sequences({}, 0, 4, {}).empty());
}

// Sequences 1 and 3 of five are reported on: they live on both ranks, and so do the other three.
TEST(Volume, PutsSequencesOfAPartOnRanksInTurn) {
  const std::vector<std::int64_t> starts = {0, 1, 2, 3, 4};
  EXPECT_EQ(homes_of_sequences(starts, 5, 2, std::vector<TokenRange>{{1, 2}, {3, 4}}),
            (std::vector{RankId{0}, RankId{0}, RankId{1}, RankId{1}, RankId{0}}));
}

TEST(Volume, CountsATraceLikeItsTokens) {
  const auto path = testing::temporary_path("t.safetensors");
  const RandomCase c = random_case(22, 3, 1);
  TraceWriter writer(
      path, {.num_experts = c.placement.num_experts, .top_k = 3, .layer_indices = {0, 2}}, false);
  for (const int layer : {0, 1}) writer.append(layer, c.topk_idx.all(), {}, "test");
  writer.finish();
  NoProgress progress;
  const TrafficModel traffic = {.cluster = c.cluster, .homes = Homes::kSequences};
  const std::vector<Placement> placements(2, c.placement);
  const std::vector<RankId> on_rank_0(std::size_t(c.topk_idx.rows()), RankId{0});
  const Trace trace(path);
  const auto reach =
      count_reach(trace, ranges_of(trace, SequencePart::kAll), placements, traffic, 2, progress);
  EXPECT_EQ(reach[0], reach_of(c.topk_idx, c.placement, traffic, on_rank_0));
  EXPECT_EQ(reach[1], reach[0]);
  EXPECT_EQ(error_of([&] {
              count_reach(trace, {}, std::span(placements).first(1), traffic, 1, progress);
            }),
            "there are 1 placements, but the trace has 2 layers");
}

// Sequences are longer than the pieces that are counted at once, and ranges begin inside of them.
TEST(Volume, GivesEachPieceOfATraceTheHomesOfItsSequences) {
  const std::int64_t num_tokens = 5 * kMaxChunkTokens / 2;
  Matrix<ExpertId> topk_idx(num_tokens, 1);
  std::mt19937_64 rng(5);
  for (ExpertId& e : topk_idx.all()) e = ExpertId{std::int32_t(uniform_below(6, rng))};
  const std::vector<std::int64_t> starts = {0, 5, 7, kMaxChunkTokens - 1, 2 * kMaxChunkTokens + 3};
  const MatrixView<const ExpertId> layer = topk_idx;
  const Trace trace({.num_experts = 6, .top_k = 1, .layer_indices = {0}}, {&layer, 1}, starts);
  const TrafficModel traffic = {.cluster = {.ranks_per_node = 3}, .homes = Homes::kSequences};
  const std::vector<Placement> placements = {place_contiguous(6, 3)};
  NoProgress progress;
  for (const std::vector<TokenRange>& ranges :
       {std::vector<TokenRange>{{0, num_tokens}},
        std::vector<TokenRange>{{3, 9}, {kMaxChunkTokens + 5, num_tokens}}}) {
    const auto homes = homes_of_sequences(starts, num_tokens, 3, ranges);
    EXPECT_EQ(count_reach(trace, ranges, placements, traffic, 1, progress),
              count_reach(trace, ranges, homes, placements, traffic, 1, progress));
  }
}

// Expert 0 is on both ranks: after token {0} of the other sequence, the next goes to rank 1.
TEST(Volume, OfAPartStartsFromTheLoadsOfTheRest) {
  const auto path = testing::temporary_path("t.safetensors");
  TraceWriter writer(path, {.num_experts = 3, .top_k = 1, .layer_indices = {0}}, false);
  for (int sequence = 0; sequence < 2; ++sequence) {
    writer.start_sequence();
    writer.append(0, std::vector{ExpertId{0}}, {}, "test");
  }
  writer.finish();
  const Trace trace(path);
  const std::vector<Placement> placements = {make_placement(3, {{0, 1}, {0, 2}})};
  const TrafficModel traffic = {.cluster = {.ranks_per_node = 2},
                                .replica_rule = ReplicaRule::kFewestRanks};
  NoProgress progress;
  for (const auto part : {SequencePart::kEven, SequencePart::kOdd}) {
    const auto reach = count_reach(trace, ranges_of(trace, part), placements, traffic, 1, progress);
    EXPECT_EQ(reach[0].num_tokens[0], 1);
    EXPECT_EQ(reach[0].tokens_on_rank(0, 1), 1);
  }
}

TEST(KeepMainSlots, KeepsTheSlotThatServesMost) {
  // Expert 0: twice with 2, which only rank 1 hosts; once with 1. Expert 3: nobody chose it.
  const Placement placement = make_placement(4, {{0, 1, 3}, {0, 2, 3}});
  const Reach reach =
      reach_of(choices_of({{0, 2}, {0, 2}, {0, 1}}), placement,
               {.cluster = {.ranks_per_node = 2}, .replica_rule = ReplicaRule::kFewestRanks});
  EXPECT_EQ(reach.choices_of_expert(0, 0), 2);  // from each of two homes
  EXPECT_EQ(reach.choices_of_expert(0, 1), 4);
  const Placement kept = keep_main_slots(placement, reach);
  EXPECT_EQ(ranks_of_experts(kept),
            (std::vector<std::vector<RankId>>{{RankId{1}}, {RankId{0}}, {RankId{1}}, {RankId{0}}}));
  EXPECT_EQ(error_of([&] { check_placement(kept); }), "rank 0 has an empty slot 0");
  EXPECT_EQ(error_of([&] { check_slots(kept); }), "no error");
}

TEST(Volume, HandlesNoTokensAndOneRank) {
  const TrafficModel traffic;
  const Volume none = volume_of(reach_of({0, 2}, place_contiguous(4, 1), traffic), traffic);
  EXPECT_EQ(none.total_copies(), 0);
  EXPECT_EQ(none.per_token(none.wire_copies()), 0);
  EXPECT_EQ(imbalance(none.choices), 1.0);
  const Volume one =
      volume_in(CopyMode::kPerNode,
                reach_of(choices_of({{0, 3}, {-1, -1}}), place_contiguous(4, 1), traffic), traffic);
  EXPECT_EQ(one.local_copies, 1);
  EXPECT_EQ(one.wire_copies(), 0);
}

TEST(Volume, SaysWhatItCannotPredict) {
  const Placement replicated = make_placement(2, {{0, 1}, {1, 0}});
  const CollaborationMatrix counts(2, 2);
  const Cluster two = {.ranks_per_node = 2};
  EXPECT_EQ(error_of([&] {
              reach_from_pairs(counts, 0, 2, replicated,
                               {.cluster = two, .replica_rule = ReplicaRule::kRandom});
            }),
            "pair counts cannot predict the replica rule random: take local-first, or a trace");
  EXPECT_EQ(error_of([&] {
              reach_from_pairs(counts, 0, 2, replicated,
                               {.cluster = two, .homes = Homes::kSequences});
            }),
            "pair counts do not say which sequence a token is of: take homes uniform, or a trace");
  EXPECT_EQ(error_of([&] {
              reach_of({3, 1}, replicated, {.cluster = two}, std::vector<RankId>(2));
            }),
            "2 home ranks were given for 3 tokens, with homes uniform");
  EXPECT_EQ(
      error_of([&] {
        volume_of(reach_of({0, 2}, replicated, {.cluster = two}), {.cluster = {.num_nodes = 2}});
      }),
      "the reach is of 2 ranks on 1 nodes, but the cluster has 2 on 2");
  EXPECT_EQ(error_of([] { dispatch_bytes({}, {.hidden = 0}); }),
            "a copy of 0 values of 2 bytes in dispatch and 2 in combine: each must be at least 1");
  EXPECT_EQ(error_of([] {
              combine_bytes({.local_copies = std::int64_t{1} << 40},
                            {.hidden = 1 << 22, .combine_element_bytes = 2});
            }),
            "1099511627776 copies of 4194304 values of 2 bytes are more than 2^63 bytes");
  EXPECT_EQ(error_of([] { parse_copy_mode("per-token"); }),
            "a copy mode is per-expert, per-rank, per-node or all-gather; not 'per-token'");
}

}  // namespace
}  // namespace c2r
