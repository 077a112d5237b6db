// Tests of routing a trace again from its logits.
#include "c2r/plan/prediction/reroute.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "c2r/collaboration/collaborators.h"
#include "c2r/core/rng.h"
#include "c2r/core/testing.h"
#include "c2r/placement/testing_internal.h"
#include "c2r/plan/prediction/predict.h"
#include "c2r/routing/policy_reference.h"

namespace c2r {
namespace {

using testing::error_of;
using testing::make_placement;

constexpr std::int32_t kNumExperts = 6;

// 2 layers, top-2, 5 tokens in 2 sequences, of 3 and of 2 tokens; few values, so that f16 is exact.
// Choices are the top-2 of the logits, but token 0 of layer 0 has others, and token 1 has one.
Trace trace_with_logits() {
  const auto path = testing::temporary_path("trace.safetensors");
  std::mt19937_64 rng(1);
  TraceWriter writer(
      path, {.model = "m", .num_experts = kNumExperts, .top_k = 2, .layer_indices = {1, 2}}, false);
  for (std::int64_t layer = 0; layer < 2; ++layer) {
    for (int t = 0; t < 5; ++t) {
      if (layer == 0 && (t == 0 || t == 3)) writer.start_sequence();
      Matrix<float> logits(1, kNumExperts);
      for (float& logit : logits.all()) logit = float(uniform_below(64, rng)) / 8;
      auto chosen = route_reference({.top_k = 2}, logits).topk_idx;
      if (layer == 0 && t == 0) {
        logits(0, std::int64_t(index(chosen(0, 1)))) = -1;
      } else if (layer == 0 && t == 1) {
        chosen(0, 1) = kNoExpert;
      }
      writer.append(layer, chosen.all(), {}, "test");
      writer.append_logits(layer, logits.all(), "test");
    }
  }
  writer.finish();
  return Trace(path);
}

Plan plan_for(const Trace& trace, std::int32_t top_t) {
  Plan plan = plan_of(trace.header(), {.ranks_per_node = 3},
                      std::vector(2, make_placement(kNumExperts, {{0, 3}, {1, 5}, {2, 4}})), {});
  CollaborationMatrix counts(kNumExperts, kNumExperts);
  for (std::int64_t a = 0; a < kNumExperts; ++a) {
    for (std::int64_t b = 0; b < kNumExperts; ++b) counts(a, b) = (a * b + a + b) % 7;
  }
  plan.top_t = top_t;
  for (PlanLayer& layer : plan.layers) layer.collaborators = top_collaborators(counts, top_t);
  check_plan(plan);
  return plan;
}

RoutedTokens odd_of(const Trace& trace) {
  return routed_tokens_of(trace, SequencePart::kOdd);
}

TEST(Reroute, FollowsTheConstraintInEveryTokenOfThePart) {
  const Trace trace = trace_with_logits();
  const Plan plan = plan_for(trace, 4);
  NoProgress progress;
  const auto rerouted = reroute(routed_tokens_of(trace, SequencePart::kAll), plan,
                                parse_rerouting("top-t:2"), 2, progress);
  for (std::int64_t layer = 0; layer < 2; ++layer) {
    const RoutingPolicy policy{
        .top_k = 2,
        .constraint = CollaborationConstraint{
            .top_t = 2, .collaborators = plan.layers[std::size_t(layer)].collaborators}};
    auto expected = route_reference(policy, trace.logits(layer, 0, 5)).topk_idx;
    if (layer == 0) expected(1, 1) = kNoExpert;  // as it was recorded
    EXPECT_EQ(rerouted.trace.topk_idx(layer, 0, 5), expected) << layer;
  }
  EXPECT_EQ(rerouted.num_choices, 10);
  EXPECT_EQ(rerouted.num_other_choices, 1);
  EXPECT_TRUE(std::ranges::equal(rerouted.trace.sequence_starts(), trace.sequence_starts()));
  EXPECT_EQ(rerouted.tokens().name, trace.path() + ", all, routed by top-t:2");

  const auto odd = reroute(odd_of(trace), plan, parse_rerouting("top-t:2"), 1, progress);
  EXPECT_EQ(odd.num_choices, 4);
  EXPECT_EQ(odd.num_other_choices, 0);
  EXPECT_EQ(odd.tokens().ranges, odd_of(trace).ranges);
  EXPECT_EQ(odd.trace.topk_idx(1, 3, 5), rerouted.trace.topk_idx(1, 3, 5));
  EXPECT_EQ(odd.trace.topk_idx(1, 0, 1)(0, 0), kNoExpert) << "not in the part";
}

// Ranks hold 0 3 | 1 5 | 2 4, so that a token with one rank is sent to one.
TEST(Reroute, LimitsTheRanksOfAToken) {
  const Trace trace = trace_with_logits();
  const Plan plan = plan_for(trace, 4);
  NoProgress progress;
  const auto tokens = odd_of(trace);
  const PredictRequest request{.traffic = {.cluster = plan.cluster}};
  const auto steps = predict_waterfall(plan, tokens, nullptr, request, 1, progress);
  const auto [limited, num_choices, num_other_choices] = predict_rerouted(
      parse_rerouting("device-limited:1"), tokens, plan, steps[0], request, 1, progress);
  EXPECT_EQ(limited.prediction.placement, "device-limited:1");
  EXPECT_EQ(limited.prediction.copies_per_token, (std::vector<double>{1, 1}));
  EXPECT_EQ(num_choices, 4);
  EXPECT_EQ(num_other_choices, 0);
  const auto all = reroute(tokens, plan, parse_rerouting("device-limited:3"), 1, progress);
  for (std::int64_t t = 3; t < 5; ++t) {  // no limit: the top-2 of the logits
    EXPECT_EQ(all.trace.topk_idx(0, t, t + 1), trace.topk_idx(0, t, t + 1));
  }
}

TEST(Reroute, SaysWhatItCannotRoute) {
  const Trace trace = trace_with_logits();
  const Plan plan = plan_for(trace, 2);
  NoProgress progress;
  const auto error = [&](const Plan& of, std::string_view rule) {
    return error_of([&] { reroute(odd_of(trace), of, parse_rerouting(rule), 1, progress); });
  };
  EXPECT_EQ(error(plan, "top-t:3"),
            "the plan lists 2 collaborators of an expert in layer 1, but 3 are asked for: make it "
            "with c2r plan --top-t 3");
  Plan changed = plan;
  changed.top_t.reset();
  EXPECT_EQ(error(changed, "top-t:3"),
            "the plan has no lists of collaborators: make it with c2r plan --top-t 3 or more");
  changed = plan;
  changed.layers[1].placement = make_placement(kNumExperts, {{0, 3, 1}, {1, 5, 2}, {2, 4, 3}});
  EXPECT_EQ(error(changed, "device-limited:1"),
            "device-limited:1: layer 2: expert 1 is on 2 ranks, but only placements without "
            "replicas have one rank an expert");
  changed = plan;
  changed.top_k = 3;
  EXPECT_TRUE(error(changed, "device-limited:1").starts_with("the plan is for 6 experts, top-3"));
  EXPECT_EQ(error(plan, "device-limited:4"),
            "top_groups is 4, but must be in [1, 3], the number of groups");
  for (const char* const name : {"top-t", "top-t:", "top-t:0", "top-t:2x", "device-limited:1025"}) {
    EXPECT_EQ(error_of([&] { parse_rerouting(name); }),
              fmt::format("a rule is top-t:T or device-limited:M, with a number of at least 1; not "
                          "'{}'",
                          name));
  }
  const auto path = testing::temporary_path("plain.safetensors");
  TraceWriter writer(path, trace.header(), false);
  const std::vector<ExpertId> ids = {ExpertId{0}, ExpertId{1}};
  writer.append(0, ids, {}, "test");
  writer.append(1, ids, {}, "test");
  writer.finish();
  const Trace plain(path);
  EXPECT_EQ(error_of([&] {
              reroute(routed_tokens_of(plain, SequencePart::kAll), plan, {.limit = 1}, 1, progress);
            }),
            path.string() +
                " has no logits to route from: import a recording that has them (megatron), or "
                "record the model again under the constraint and give that with --constrained");
}

}  // namespace
}  // namespace c2r
