// Tests of the ways to group sequences, and of plans whose loads are even in every group.
#include "c2r/plan/scenarios/scenarios.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "c2r/core/rng.h"
#include "c2r/core/testing.h"
#include "c2r/plan/make_plan.h"

namespace c2r {
namespace {

using testing::error_of;

// One layer; the tokens of a sequence choose two of the four experts of its subject, and every
// subject has other experts: sequence s has the subject subject_of[s].
Trace trace_of_subjects(const std::vector<int>& subject_of, std::int64_t tokens_each,
                        std::int32_t num_experts = 16) {
  std::mt19937_64 rng(3);
  const std::int64_t num_tokens = std::ssize(subject_of) * tokens_each;
  Matrix<ExpertId> choices(num_tokens, 2);
  std::vector<std::int64_t> starts;
  for (std::size_t s = 0; s < subject_of.size(); ++s) {
    starts.push_back(std::int64_t(s) * tokens_each);
    for (std::int64_t t = 0; t < tokens_each; ++t) {
      const auto first = std::int32_t(uniform_below(4, rng));
      const auto second = (first + 1 + std::int32_t(uniform_below(3, rng))) % 4;
      const auto row = choices.row(starts.back() + t);
      row[0] = ExpertId{(subject_of[s] * 4 + first) % num_experts};
      row[1] = ExpertId{(subject_of[s] * 4 + second) % num_experts};
    }
  }
  const MatrixView<const ExpertId> view = choices;
  return Trace({.num_experts = num_experts, .top_k = 2, .layer_indices = {0}}, std::span(&view, 1),
               starts);
}

std::vector<Scenario> all_in(const Trace& trace, std::string_view text) {
  const std::vector<TokenRange> all = {{0, trace.num_tokens()}};
  return scenarios_of(trace, all, all, text);
}

TEST(Scenarios, AreTheNamedPartsOfTheFittedSequences) {
  const Trace trace = trace_of_subjects({0, 1, 2, 3}, 10);
  const auto halves = all_in(trace, "first-half,second-half");
  ASSERT_EQ(halves.size(), 2);
  EXPECT_EQ(halves[0].name, "first-half");
  EXPECT_EQ(halves[0].ranges, (std::vector<TokenRange>{{0, 20}}));
  EXPECT_EQ(halves[1].ranges, (std::vector<TokenRange>{{20, 40}}));
  const auto even = ranges_of(trace, SequencePart::kEven);
  const std::vector<TokenRange> all = {{0, 40}};
  const auto of_even = scenarios_of(trace, even, all, "second-half,first-half");
  EXPECT_EQ(of_even[0].ranges, (std::vector<TokenRange>{{20, 30}}));
  EXPECT_EQ(of_even[1].ranges, (std::vector<TokenRange>{{0, 10}}));
}

TEST(Scenarios, AreGroupsOfNeighboursWithAsManyTokens) {
  const auto groups = all_in(trace_of_subjects({0, 0, 1, 1, 2, 2}, 10), "3");
  ASSERT_EQ(groups.size(), 3);
  EXPECT_EQ(groups[1].name, "2 of 3");
  EXPECT_EQ(groups[1].ranges, (std::vector<TokenRange>{{20, 40}}));
}

TEST(Scenarios, ClustersFindSubjectsInAnyOrder) {
  const auto clusters = all_in(trace_of_subjects({2, 0, 1, 0, 2, 1, 0, 1, 2}, 20), "clusters:3");
  ASSERT_EQ(clusters.size(), 3);
  std::vector<std::vector<TokenRange>> found;
  for (const Scenario& cluster : clusters) found.push_back(cluster.ranges);
  std::ranges::sort(found, {}, [](const auto& ranges) { return ranges[0].begin; });
  EXPECT_EQ(found[0], (std::vector<TokenRange>{{0, 20}, {80, 100}, {160, 180}}));
  EXPECT_EQ(found[1], (std::vector<TokenRange>{{20, 40}, {60, 80}, {120, 140}}));
  EXPECT_EQ(found[2], (std::vector<TokenRange>{{40, 60}, {100, 120}, {140, 160}}));
}

TEST(Scenarios, RefusesGroupsThatAreNotAllFittedTokensOnce) {
  const Trace trace = trace_of_subjects({0, 1, 2, 3}, 10);
  const auto first = ranges_of(trace, SequencePart::kFirstHalf);
  const std::vector<TokenRange> all = {{0, 40}};
  const auto error = [&](std::string_view text) { return error_of([&] { all_in(trace, text); }); };
  EXPECT_EQ(error("even,first-half"),
            "the scenarios even and first-half share sequences, but each sequence is in one "
            "scenario");
  EXPECT_EQ(error("even"),
            "the scenarios 'even' are 20 of the 40 fitted tokens, but must be all of "
            "them");
  EXPECT_EQ(error("1"), "scenarios '1' of 4 fitted sequences: their number must be in [2, 4]");
  EXPECT_EQ(error("clusters:x"),
            "scenarios 'clusters:x' of 4 fitted sequences: their number must be in [2, 4]");
  EXPECT_EQ(error("traces"), "there are 1 scenarios, but must be 2 to 64");
  EXPECT_EQ(error("weekdays"),
            "a part of a trace is all, even, odd, first-half or second-half; not 'weekdays'");
  EXPECT_EQ(error_of([&] { scenarios_of(trace, first, all, "first-half,second-half"); }),
            "the scenario second-half has no fitted tokens");
}

// Subjects alternate within a batch, but a recording has one after the other: experts of one
// subject on one rank save most copies, and make that rank the only one that works.
TEST(Scenarios, APlanKeepsTheBoundInEachOfThem) {
  const Trace trace = trace_of_subjects({0, 0, 1, 1, 2, 2, 3, 3}, 100);
  PlanRequest request{.cluster = {.ranks_per_node = 4}, .effort = 0.1};
  request.goal.max_imbalance = 1.3;
  for (const std::int32_t redundant : {0, 1}) {
    SCOPED_TRACE(redundant);
    request.redundant_slots_per_rank = redundant;
    request.scenarios = "";
    const MadePlan together = make_plan(trace, request);
    request.scenarios = "4";
    const MadePlan apart = make_plan(trace, request);
    ASSERT_EQ(apart.scenarios.size(), 4);
    EXPECT_TRUE(together.scenarios.empty());
    const auto worst_of = [&](const MadePlan& made) {
      NoProgress silent;
      double worst = 0;
      for (const Scenario& scenario : all_in(trace, "4")) {
        worst = std::max(worst, predict(trace, scenario.ranges, placements_of(made.plan),
                                        {.traffic = default_traffic(request.cluster)}, 1, silent)
                                    .imbalance[0]);
      }
      return worst;
    };
    EXPECT_GT(worst_of(together), 2);
    EXPECT_TRUE(apart.search->layers[0].meets_bounds);
    EXPECT_LE(apart.search->layers[0].imbalance, 1.3 * (1 + 1e-9));
    // With replicas, a token's ranks depend on the loads of all tokens before, those of other
    // scenarios among them, which the search does not foresee: on six traces like this one, the
    // worst scenario had 1.09 to 1.58. It is below that of the plan without scenarios.
    EXPECT_LE(worst_of(apart), redundant == 0 ? 1.3 * (1 + 2e-2) : 2);
  }
}

TEST(Scenarios, RefusesRequestsThatTheyDoNotSuit) {
  const Trace trace = trace_of_subjects({0, 1, 2, 3}, 10);
  PlanRequest request{.cluster = {.ranks_per_node = 4}};
  request.scenarios = "2";
  request.method = "eplb";
  EXPECT_EQ(error_of([&] { make_plan(trace, request); }),
            "scenarios are for the method optimize, not eplb");
  request.method = kOptimizeMethod;
  request.goal.bound_on = BoundOn::kUnseen;
  EXPECT_EQ(error_of([&] { make_plan(trace, request); }),
            "scenarios take no bound on unseen tokens: they are what the bound is to hold in");
}

TEST(MakePlan, FitsSeveralTracesLikeOneThatHasTheirSequences) {
  const std::vector<int> subjects = {0, 1, 2, 3};
  std::vector<Trace> apart;
  apart.push_back(trace_of_subjects({0, 1}, 50));
  apart.push_back(trace_of_subjects({2, 3}, 30));
  const PlanRequest request{.cluster = {.ranks_per_node = 4}, .effort = 0.1};
  const JoinedTraces joined = join_traces(apart);
  EXPECT_EQ(joined.trace.num_tokens(), 160);
  EXPECT_EQ(joined.parts, (std::vector<TokenRange>{{0, 100}, {100, 160}}));
  const auto starts = joined.trace.sequence_starts();
  EXPECT_EQ(std::vector(starts.begin(), starts.end()),
            (std::vector<std::int64_t>{0, 50, 100, 130}));
  EXPECT_EQ(joined.trace.topk_idx(0, 100, 160), apart[1].topk_idx(0, 0, 60));
  const MadePlan made = make_plan(apart, request);
  EXPECT_EQ(placements_of(made.plan), placements_of(make_plan(joined.trace, request).plan));
  ASSERT_EQ(made.plan.provenance.inputs.size(), 2);
  EXPECT_EQ(made.plan.provenance.inputs[1].name, apart[1].path());
  EXPECT_EQ(parse_plan(plan_to_text(made.plan), "test"), made.plan);

  PlanRequest worst = request;
  worst.scenarios = "traces";
  EXPECT_EQ(make_plan(apart, worst).scenarios[1].name, "trace 2 of 2");
  EXPECT_EQ(make_plan(apart, request, SequencePart::kFirstHalf).plan.predictions[0].num_tokens, 80);

  apart.push_back(trace_of_subjects({0}, 10, 12));
  EXPECT_EQ(
      error_of([&] { join_traces(apart); }),
      "memory has 12 experts, top-2, in 1 layers, but memory has 16, top-2, in 1: traces that "
      "are fitted together are of one model");
}

}  // namespace
}  // namespace c2r
