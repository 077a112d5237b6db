// What a program may hand over wrongly in memory is refused with an error that names it. In each
// test the first values are right and a later one is not.
#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <vector>

#include "c2r/core/testing.h"
#include "c2r/placement/cost/reach.h"
#include "c2r/placement/optimize.h"
#include "c2r/placement/testing_internal.h"
#include "c2r/routing/routing.h"
#include "c2r/trace/trace.h"

namespace c2r {
namespace {

using testing::error_of;

// [num_tokens, top_k] with the experts 0, 1, 2, ... in every token.
Matrix<ExpertId> first_experts(std::int64_t num_tokens, std::int32_t top_k) {
  Matrix<ExpertId> topk_idx(num_tokens, top_k);
  for (std::int64_t t = 0; t < num_tokens; ++t) {
    for (std::int32_t k = 0; k < top_k; ++k) topk_idx(t, k) = ExpertId{k};
  }
  return topk_idx;
}

TEST(InMemory, CountersRefuseAChoiceThatIsNone) {
  const Cluster two{.ranks_per_node = 2};
  ReachCounter counter(place_contiguous(4, 2), {.cluster = two});
  const Reach nothing = counter.finish();
  auto tokens = first_experts(3, 2);
  tokens(1, 1) = ExpertId{900};
  EXPECT_EQ(error_of([&] { counter.add(tokens, {}); }),
            "token 1 names expert 900 in column 1, but there are 4 experts, and -1 for none");
  EXPECT_EQ(error_of([&] { counter.serve_before(tokens, {}); }),
            "token 1 names expert 900 in column 1, but there are 4 experts, and -1 for none");
  tokens(1, 1) = ExpertId{0};
  EXPECT_EQ(error_of([&] { counter.add(tokens, {}); }),
            "token 1 names expert 0 twice, in columns 0 and 1");
  EXPECT_EQ(counter.finish(), nothing);

  TokenSetBuilder builder(4, 2);
  tokens(1, 1) = ExpertId{-2};
  EXPECT_EQ(error_of([&] { builder.add(tokens); }),
            "token 1 names expert -2 in column 1, but there are 4 experts, and -1 for none");
  EXPECT_EQ(builder.finish().num_tokens, 0);
}

TEST(InMemory, SetsAreCountedInEachScenario) {
  std::mt19937_64 rng(5);
  TokenSetBuilder builder(6, 3, 3), whole(6, 3);
  std::map<std::vector<ExpertId>, std::vector<std::int64_t>> counts;
  const auto set_of = [](std::span<const ExpertId> choices) {
    std::vector<ExpertId> set(choices.begin(), choices.end());
    std::erase(set, kNoExpert);
    std::ranges::sort(set);
    return set;
  };
  for (std::int64_t batch = 0; batch < 40; ++batch) {
    Matrix<ExpertId> tokens(7, 3);
    for (std::int64_t t = 0; t < tokens.rows(); ++t) {
      std::ranges::copy(testing::random_choices(6, 3, rng), tokens.row(t).begin());
      auto& in = counts[set_of(tokens.row(t))];
      in.resize(3);
      ++in[std::size_t(batch % 3)];
    }
    builder.add(tokens, batch % 3);
    whole.add(tokens);
  }
  counts.erase(std::vector<ExpertId>());
  TokenSets sets = builder.finish();
  ASSERT_EQ(sets.num_sets(), std::ssize(counts));
  ASSERT_EQ(sets.multiplicity_in.cols(), 3);
  for (std::int64_t set = 0; set < sets.num_sets(); ++set) {
    const auto in = sets.multiplicity_in.row(set);
    EXPECT_TRUE(std::ranges::equal(in, counts[set_of(sets.experts.row(set))])) << set;
  }
  sets.multiplicity_in = {};
  EXPECT_EQ(sets, whole.finish());
  EXPECT_EQ(error_of([] { TokenSetBuilder(6, 3, -1); }), "there cannot be -1 scenarios");
}

TEST(InMemory, CountersRefuseAHomeThatIsNone) {
  ReachCounter counter(place_contiguous(4, 2),
                       {.cluster = {.ranks_per_node = 2}, .homes = Homes::kSequences});
  for (const int wrong : {2, -1}) {
    const std::vector homes = {RankId{0}, RankId{1}, RankId{wrong}};
    EXPECT_EQ(error_of([&] { counter.add(first_experts(3, 2), homes); }),
              fmt::format("token 2 lives on rank {}, but the cluster has ranks 0 to 1", wrong));
  }
  const std::vector<std::int64_t> descending = {0, 3, 2}, beyond = {0, 3, 6};
  const std::vector<TokenRange> all = {{0, 5}};
  EXPECT_EQ(error_of([&] { homes_of_sequences(descending, 5, 2, all); }),
            "sequence 2 starts at token 2, but must start in [3, 5]");
  EXPECT_EQ(error_of([&] { homes_of_sequences(beyond, 5, 2, all); }),
            "sequence 2 starts at token 6, but must start in [3, 5]");
  EXPECT_EQ(error_of([&] {
              homes_of_sequences(std::vector<std::int64_t>{0, 3}, 5, 0, all);
            }),
            "sequences cannot live on 0 ranks");
}

TEST(InMemory, ChoosersRefuseATokenThatIsNone) {
  const Cluster two{.ranks_per_node = 2};
  const Placement everywhere = testing::make_placement(3, {{0, 1, 2}, {2, 1, 0}});
  std::vector<RankId> served_by(2);
  for (const ReplicaRule rule :
       {ReplicaRule::kFewestRanks, ReplicaRule::kLocalFirst, ReplicaRule::kRandom}) {
    ReplicaChooser chooser(everywhere, {.cluster = two, .replica_rule = rule});
    for (const int wrong : {3, 900, -2}) {
      const std::vector experts = {ExpertId{1}, ExpertId{wrong}};
      const std::string message =
          fmt::format("a token names expert {}, but there are 3 experts, and -1 for none", wrong);
      EXPECT_EQ(error_of([&] { chooser.choose(experts, RankId{0}, 0, served_by); }), message);
      if (!chooser.has_memory()) continue;
      EXPECT_EQ(error_of([&] { chooser.choose_alike(experts, 1, served_by); }), message);
    }
    const std::vector experts = {ExpertId{1}, kNoExpert};
    for (const int wrong : {2, -1}) {
      EXPECT_EQ(error_of([&] { chooser.choose(experts, RankId{wrong}, 0, served_by); }),
                fmt::format("a token lives on rank {}, but the cluster has ranks 0 to 1", wrong));
    }
    EXPECT_EQ(
        error_of([&] { chooser.choose(experts, RankId{0}, 0, std::span(served_by).first(1)); }),
        "a token has 2 experts, but there is room for 1 ranks");
    EXPECT_EQ(error_of([&] { chooser.choose(experts, RankId{0}, 0, served_by); }), "no error");
  }
  ReplicaChooser fewest(everywhere, {.cluster = two});
  EXPECT_EQ(error_of([&] {
              fewest.choose_alike(std::vector{ExpertId{1}, ExpertId{2}}, 0, served_by);
            }),
            "homes are 0 apart, but must be at least 1");
}

TEST(InMemory, CoversRefuseWhatIsOutOfRange) {
  CoverSolver solver({.ranks_per_node = 2}, 3);
  const std::vector<std::uint16_t> both = {0, 1}, beyond = {0, 2}, experts = {0, 3};
  solver.set_hosts(0, both);
  EXPECT_EQ(error_of([&] { solver.set_hosts(3, both); }),
            "expert 3 is given hosts, but there are 3 experts");
  EXPECT_EQ(error_of([&] { solver.set_hosts(1, beyond); }),
            "expert 1 is hosted by rank 2, but the cluster has ranks 0 to 1");
  std::vector<std::int64_t> loads(2);
  std::vector<std::uint16_t> served_by(2);
  EXPECT_EQ(error_of([&] { solver.solve(experts, loads, served_by); }),
            "a token names expert 3, but there are 3 experts");
  EXPECT_EQ(error_of([&] { solver.solve(std::span(experts).first(1), loads, served_by); }),
            "a token of 1 experts is served under the loads of 2 ranks and fills 2 ranks, but the "
            "cluster has 2");
  EXPECT_EQ(error_of([&] {
              solver.solve(std::span(experts).first(1), std::span(loads).first(1),
                           std::span(served_by).first(1));
            }),
            "a token of 1 experts is served under the loads of 1 ranks and fills 1 ranks, but the "
            "cluster has 2");
}

TEST(InMemory, PlacementsHaveANumberOfExperts) {
  for (const int wrong : {-1, kMaxExperts + 1}) {
    Placement placement = place_contiguous(4, 2);
    placement.num_experts = wrong;
    const auto message =
        fmt::format("a placement is of {} experts, but must be of 0 to 1024", wrong);
    EXPECT_EQ(error_of([&] { check_placement(placement); }), message);
    EXPECT_EQ(error_of([&] { ReachCounter(placement, {.cluster = {.ranks_per_node = 2}}); }),
              message);
  }
  EXPECT_EQ(error_of([] { place_contiguous(-4, 2); }),
            "-4 experts cannot be split evenly over 2 ranks");
}

// Every expert on both ranks of 40, so that the cover has something to choose.
TEST(InMemory, OneLimitOnTheChoicesOfAToken) {
  const Cluster two{.ranks_per_node = 2};
  std::vector<std::int32_t> all(40);
  std::iota(all.begin(), all.end(), 0);
  const Placement everywhere = placement_of_ranks(40, std::vector{all, all});
  ReachCounter counter(everywhere, {.cluster = two});
  counter.add(first_experts(2, kMaxTopK), {});
  EXPECT_EQ(counter.finish().choices_on_rank(0, 0), kMaxTopK);
  EXPECT_EQ(error_of([&] { counter.add(first_experts(2, kMaxTopK + 1), {}); }),
            "tokens have 33 choices, but at most 32 can be served");

  ReplicaChooser chooser(everywhere, {.cluster = two});
  std::vector<RankId> served_by(kMaxTopK + 1);
  EXPECT_EQ(error_of([&] {
              chooser.choose(first_experts(1, kMaxTopK + 1).row(0), RankId{0}, 0, served_by);
            }),
            "a token has 33 experts, but at most 32 can be served");

  TokenSetBuilder builder(40, kMaxTopK);
  builder.add(first_experts(2, kMaxTopK));
  const auto met = measure_placement(builder.finish(), two, {}, everywhere);
  EXPECT_EQ(met.copies_per_token, 1);
  EXPECT_EQ(error_of([] { TokenSetBuilder(40, kMaxTopK + 1); }),
            "token sets need 1 <= top_k <= num_experts, top_k up to 32 and num_experts up to 1024, "
            "not top_k 33 of 40 experts");
  const TokenSets wide{.num_experts = 40,
                       .num_tokens = 1,
                       .experts = first_experts(1, kMaxTopK + 1),
                       .multiplicity = {1}};
  EXPECT_EQ(error_of([&] { optimize_placement(wide, two, {}, {}); }),
            "token sets are [1, 33] of 40 experts with 1 multiplicities, but must be [num_sets, up "
            "to 32] of up to 1024 experts with one multiplicity a set");
}

TEST(InMemory, OptimizerRefusesTokenSetsThatAreNone) {
  const Cluster two{.ranks_per_node = 2};
  const TokenSets good{
      .num_experts = 4, .num_tokens = 5, .experts = first_experts(2, 3), .multiplicity = {2, 3}};
  EXPECT_EQ(error_of([&] { check_token_sets(good); }), "no error");
  const auto error = [&](const TokenSets& sets) {
    const std::string message = error_of([&] { optimize_placement(sets, two, {}, {}); });
    EXPECT_EQ(error_of([&] { measure_placement(sets, two, {}, place_contiguous(4, 2)); }), message);
    EXPECT_EQ(error_of([&] { pareto_front(sets, two, {}, {}, 2); }), message);
    return message;
  };
  TokenSets sets = good;
  sets.experts(1, 2) = ExpertId{4};
  EXPECT_EQ(error(sets),
            "token set 1 names expert 4, but must name experts below 4, ascending, then -1");
  sets.experts(1, 2) = ExpertId{1};
  EXPECT_EQ(error(sets),
            "token set 1 names expert 1, but must name experts below 4, ascending, then -1");
  sets.experts(1, 0) = sets.experts(1, 1) = kNoExpert;
  EXPECT_EQ(error(sets),
            "token set 1 names expert 1, but must name experts below 4, ascending, then -1");
  sets = good;
  sets.multiplicity[1] = 4;
  EXPECT_EQ(error(sets),
            "token set 1 has the multiplicity 4, but must have at least 1, and all sets together "
            "no more than the 5 tokens");
  sets.multiplicity.pop_back();
  EXPECT_EQ(error(sets),
            "token sets are [2, 3] of 4 experts with 1 multiplicities, but must be [num_sets, up "
            "to 32] of up to 1024 experts with one multiplicity a set");
}

TEST(InMemory, MainSlotsAreThoseOfTheCountedPlacement) {
  ReachCounter counter(place_contiguous(4, 2), {.cluster = {.ranks_per_node = 2}});
  const Reach reach = counter.finish();
  EXPECT_EQ(error_of([&] { keep_main_slots(place_contiguous(6, 2), reach); }),
            "the counts are of 4 experts on 2 ranks, but the placement is of 6 on 2");
}

// The cluster is the one that the experts are placed on: the time of 8 ranks, whatever else the
// objective says.
TEST(InMemory, TimesAreOfTheClusterThatIsPlacedOn) {
  const Cluster eight{.ranks_per_node = 8, .device_flop_per_s = 1e12};
  TokenSetBuilder builder(16, 2);
  builder.add(first_experts(3, 2));
  const PlacementObjective objective{
      .goal = Goal::kTime,
      .layer_time = LayerTimeOptions{.format = {.hidden = 8}, .flop_per_choice = 1}};
  const auto fastest = optimize_placement(builder.finish(), eight, objective, {.effort = 1e-3});
  EXPECT_EQ(fastest.placement.ep_size(), 8);
  EXPECT_GE(fastest.value, fastest.value_bound);
  Cluster without_rate = eight;
  without_rate.device_flop_per_s.reset();
  EXPECT_EQ(error_of([&] { optimize_placement(builder.finish(), without_rate, objective, {}); }),
            "predicting a layer's time needs the cluster's device_flop_per_s");
  const Cluster no_ranks{.num_nodes = 0};
  EXPECT_NE(error_of([&] { optimize_placement(builder.finish(), no_ranks, {}, {}); }), "no error");
}

class LastUpdate final : public Progress {
 public:
  void update(std::int64_t done, std::int64_t total) override { done_ = done, total_ = total; }
  std::int64_t done_ = 0, total_ = 0;
};

// A layer takes microseconds, so that any of eight threads is the last one.
TEST(InMemory, CountingEndsWithItsTotal) {
  const auto path = testing::temporary_path("t.safetensors");
  TraceHeader header{.num_experts = 4, .top_k = 2};
  for (int layer = 0; layer < 40; ++layer) header.layer_indices.push_back(layer);
  TraceWriter writer(path, header, false);
  const auto tokens = first_experts(1, 2);
  for (int layer = 0; layer < 40; ++layer) writer.append(layer, tokens.all(), {}, "test");
  writer.finish();
  const Trace trace(path);
  const std::vector<Placement> placements(40, place_contiguous(4, 2));
  for (int run = 0; run < 50; ++run) {
    LastUpdate progress;
    count_reach(trace, ranges_of(trace, SequencePart::kAll), placements,
                {.cluster = {.ranks_per_node = 2}}, 8, progress);
    EXPECT_EQ(progress.done_, 40) << "run " << run;
    EXPECT_EQ(progress.total_, 40);
  }
}

}  // namespace
}  // namespace c2r
