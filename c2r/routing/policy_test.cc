// Tests of routing policies: worked examples, ties, and the message of every refusal.
#include "c2r/routing/policy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "c2r/core/error.h"
#include "c2r/routing/policy_reference.h"

namespace c2r {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

Matrix<float> logits_of(const std::vector<std::vector<float>>& rows) {
  Matrix<float> logits(std::ssize(rows), std::ssize(rows[0]));
  for (std::size_t t = 0; t < rows.size(); ++t) {
    std::ranges::copy(rows[t], logits.row(static_cast<std::int64_t>(t)).begin());
  }
  return logits;
}

Matrix<ExpertId> lists_of(const std::vector<std::vector<int>>& rows) {
  Matrix<ExpertId> lists(std::ssize(rows), std::ssize(rows[0]));
  for (std::size_t e = 0; e < rows.size(); ++e) {
    std::ranges::transform(rows[e], lists.row(static_cast<std::int64_t>(e)).begin(),
                           [](int id) { return ExpertId{id}; });
  }
  return lists;
}

std::vector<int> ids(const Routing& routing, std::int64_t token) {
  std::vector<int> out;
  for (const ExpertId e : routing.topk_idx.row(token)) out.push_back(static_cast<int>(e));
  return out;
}

// Both must hold for every example worked by hand.
void expect_routes(const RoutingPolicy& policy, const std::vector<float>& row,
                   const std::vector<int>& experts, const std::vector<double>& weights) {
  const Matrix<float> logits = logits_of({row});
  const Router router(policy, static_cast<std::int32_t>(row.size()));
  for (const Routing& routing : {route_reference(policy, logits), router.route(logits)}) {
    EXPECT_EQ(ids(routing, 0), experts);
    for (std::size_t k = 0; k < weights.size(); ++k) {
      // exp, sum and quotient are together within 2^-20 of the truth; what should be 0 is 2^-126.
      EXPECT_NEAR(routing.topk_weights(0, static_cast<std::int64_t>(k)), weights[k],
                  0x1p-20 * weights[k] + 0x1p-100);
    }
  }
}

// Logits whose exponentials are 1, 2, 4 and 1: softmax 1/8, 2/8, 4/8, 1/8.
std::vector<float> eighths() {
  return {0, std::log(2.0f), std::log(4.0f), 0};
}

TEST(Router, SoftmaxOverAllKeepsTheProbabilities) {
  expect_routes({.top_k = 2}, eighths(), {2, 1}, {0.5, 0.25});
  expect_routes({.top_k = 2, .scale = 16}, eighths(), {2, 1}, {8, 4});
}

TEST(Router, NormalisesOverTheChosen) {
  expect_routes({.top_k = 2, .norm_topk_prob = true}, eighths(), {2, 1}, {2.0 / 3, 1.0 / 3});
  expect_routes({.scoring = Scoring::kSoftmaxOverChosen, .top_k = 2, .scale = 4}, eighths(), {2, 1},
                {8.0 / 3, 4.0 / 3});
}

TEST(Router, GivesTiesToTheLowerExpert) {
  expect_routes({.top_k = 3}, {1, 2, 1, 2, 1}, {1, 3, 0}, {});
  expect_routes({.top_k = 3}, {-0.0f, 0.0f, -0.0f}, {0, 1, 2}, {1.0 / 3, 1.0 / 3, 1.0 / 3});
}

// 6 experts in 3 groups with maxima 3, 5 and 4: expert 0, of the worst group, cannot be chosen
// although it is better than expert 4.
TEST(Router, ChoosesWithinTheGroupsOfTheBestExperts) {
  const RoutingPolicy deepseek_v2{.top_k = 3, .scale = 16, .num_groups = 3, .top_groups = 2};
  expect_routes(deepseek_v2, {3, 0, 5, 2, 1, 4}, {2, 5, 3}, {});
}

// Sigmoids are 1/2, 3/4, 1/4 and 9/10. The bias moves the choice and not the weights.
TEST(Router, ChoosesSigmoidsByBiasAndWeighsThemWithout) {
  const std::vector<float> row = {0, std::log(3.0f), -std::log(3.0f), std::log(9.0f)};
  RoutingPolicy policy{.scoring = Scoring::kSigmoid, .top_k = 2};
  expect_routes(policy, row, {3, 1}, {0.9, 0.75});
  policy.selection_bias = {0, 0, 1, 0};
  expect_routes(policy, row, {2, 3}, {0.25, 0.9});
  policy.norm_topk_prob = true;
  policy.scale = 2.5;
  expect_routes(policy, row, {2, 3}, {2.5 * 0.25 / 1.15, 2.5 * 0.9 / 1.15});
}

// Group scores: 0.9 + 0.1 and 0.5 + 0.75. The largest single score loses.
TEST(Router, RanksGroupsByTheirBestTwo) {
  const std::vector<float> row = {std::log(9.0f), -std::log(9.0f), 0, std::log(3.0f)};
  const RoutingPolicy deepseek_v3{.scoring = Scoring::kSigmoid,
                                  .top_k = 2,
                                  .num_groups = 2,
                                  .top_groups = 1,
                                  .group_score = GroupScore::kSumOfBestTwo};
  expect_routes(deepseek_v3, row, {3, 2}, {0.75, 0.5});
}

TEST(Router, NeverLeavesTheGroupsForAPositiveScore) {
  const RoutingPolicy policy{.scoring = Scoring::kSigmoid,
                             .top_k = 2,
                             .selection_bias = {-5, -9, -6, -6},
                             .num_groups = 2,
                             .top_groups = 1};
  expect_routes(policy, {0, 0, 0, 0}, {0, 1}, {0.5, 0.5});
}

const std::vector<std::vector<int>> kListsOfFour = {
    {1, 3, 2, 0}, {2, 3, 0, 1}, {0, 3, 1, 2}, {2, 1, 0, 3}};

TEST(Router, ChoosesAmongTheCollaboratorsOfTheBest) {
  RoutingPolicy policy{.top_k = 2,
                       .constraint = CollaborationConstraint{2, lists_of(kListsOfFour)}};
  // Expert 2 is best; its first two collaborators are 0 and 3, and 1 would have been next.
  expect_routes(policy, eighths(), {2, 0}, {0.5, 0.125});
  policy.norm_topk_prob = true;
  expect_routes(policy, eighths(), {2, 0}, {0.8, 0.2});
  policy.scoring = Scoring::kSoftmaxOverChosen;
  policy.scale = 4;
  expect_routes(policy, eighths(), {2, 0}, {3.2, 0.8});
}

TEST(Router, TakesTheOnlyCollaboratorWhateverItsLogit) {
  const RoutingPolicy policy{.scoring = Scoring::kSoftmaxOverChosen,
                             .top_k = 2,
                             .constraint = CollaborationConstraint{1, lists_of(kListsOfFour)}};
  expect_routes(policy, {-1e30f, 1, 3, 2}, {2, 0}, {1, 0});
}

TEST(Router, RoutesNoTokens) {
  const Routing routing = Router({.top_k = 2}, 5).route(Matrix<float>(0, 5));
  EXPECT_EQ(routing.num_tokens(), 0);
  EXPECT_EQ(routing.top_k(), 2);
  EXPECT_EQ(routing.num_experts, 5);
}

// An independent rule, in double precision: sort by probability, divide by a plain sum.
TEST(RouteReference, AgreesWithDoublePrecision) {
  std::mt19937_64 rng(7);
  std::normal_distribution<float> normal(0, 3);
  for (const int num_experts : {8, 60, 256}) {
    Matrix<float> logits(200, num_experts);
    for (float& logit : logits.all()) logit = normal(rng);
    const Routing routing = route_reference({.top_k = 4}, logits);
    const Routing sigmoids =
        route_reference({.scoring = Scoring::kSigmoid, .top_k = 4, .norm_topk_prob = true}, logits);
    for (std::int64_t t = 0; t < logits.rows(); ++t) {
      std::vector<double> p, s;
      for (const float logit : logits.row(t)) {
        p.push_back(std::exp(double{logit}));
        s.push_back(1 / (1 + std::exp(-double{logit})));
      }
      std::vector<int> order(p.size());
      std::iota(order.begin(), order.end(), 0);
      std::ranges::stable_sort(order, [&](int a, int b) {
        return p[static_cast<std::size_t>(a)] > p[static_cast<std::size_t>(b)];
      });
      order.resize(4);
      EXPECT_EQ(ids(routing, t), order);
      const double sum = std::accumulate(p.begin(), p.end(), 0.0);
      double chosen_sum = 0;
      for (const int e : ids(sigmoids, t)) chosen_sum += s[static_cast<std::size_t>(e)];
      for (std::int64_t k = 0; k < 4; ++k) {
        // In units of 2^-24: exp 5 + 1.5 * 20 and the difference that it is taken of 12, twice,
        // for numerator and denominator; the sum's 20 additions, quotient and scale 22.
        const auto e = index(routing.topk_idx(t, k));
        EXPECT_NEAR(routing.topk_weights(t, k), p[e] / sum, 116 * 0x1p-24 * p[e] / sum);
        const auto f = index(sigmoids.topk_idx(t, k));
        EXPECT_NEAR(sigmoids.topk_weights(t, k), s[f] / chosen_sum, 32 * 0x1p-24);
      }
    }
  }
}

std::string error_of(const RoutingPolicy& policy, std::int32_t num_experts) {
  try {
    Router(policy, num_experts);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    return error.what();
  }
  return "no error";
}

std::string error_of_lists(std::int32_t top_k, std::int32_t top_t,
                           const std::vector<std::vector<int>>& lists) {
  return error_of({.top_k = top_k, .constraint = CollaborationConstraint{top_t, lists_of(lists)}},
                  4);
}

TEST(Router, RejectsCountsThatCannotBe) {
  EXPECT_EQ(error_of({}, 0), "num_experts is 0, but must be in [1, 1024]");
  EXPECT_EQ(error_of({}, 1025), "num_experts is 1025, but must be in [1, 1024]");
  EXPECT_EQ(error_of({.top_k = 0}, 4), "top_k is 0, but must be in [1, 4]");
  EXPECT_EQ(error_of({.top_k = 33}, 64), "top_k is 33, but must be in [1, 32]");
  EXPECT_EQ(error_of({.scale = kNan}, 4), "the policy's scale is nan, but must be finite");
}

TEST(Router, RejectsBiasesThatDoNotFit) {
  EXPECT_EQ(error_of({.selection_bias = {1, 2}}, 2),
            "a selection bias is only defined for sigmoid scores; leave it empty");
  EXPECT_EQ(error_of({.scoring = Scoring::kSigmoid, .selection_bias = {1, 2}}, 3),
            "the selection bias has 2 values, but there are 3 experts");
  EXPECT_EQ(error_of({.scoring = Scoring::kSigmoid, .selection_bias = {1, kInfinity}}, 2),
            "the selection bias of expert 1 is inf, but must be finite");
}

TEST(Router, RejectsGroupsThatDoNotFit) {
  EXPECT_EQ(error_of({.num_groups = 3}, 4), "4 experts cannot be split evenly into 3 groups");
  EXPECT_EQ(error_of({.num_groups = 2, .top_groups = 3}, 4),
            "top_groups is 3, but must be in [1, 2], the number of groups");
  EXPECT_EQ(error_of({.top_k = 3, .num_groups = 2, .top_groups = 1}, 4),
            "top_k is 3, but the best 1 groups hold only 2 experts");
  EXPECT_EQ(error_of({.group_score = GroupScore::kSumOfBestTwo}, 4),
            "the sum of a group's best two is only defined for sigmoid scores; use the maximum");
  EXPECT_EQ(
      error_of(
          {.scoring = Scoring::kSigmoid, .num_groups = 4, .group_score = GroupScore::kSumOfBestTwo},
          4),
      "the sum of a group's best two needs 2 experts in each group, but 4 experts in 4 "
      "groups are 1 in each");
}

TEST(Router, RejectsConstraintsThatCannotBe) {
  const auto& lists = kListsOfFour;
  EXPECT_EQ(error_of_lists(2, 0, lists),
            "top_t is 0, but must be at least 1, so that top_k = 2 experts can be chosen");
  EXPECT_EQ(error_of_lists(4, 2, lists),
            "top_t is 2, but must be at least 3, so that top_k = 4 experts can be chosen");
  EXPECT_EQ(error_of_lists(2, 4, lists), "top_t is 4, but each of 4 experts has only 3 others");
  EXPECT_EQ(error_of_lists(2, 1, {{1}, {0}, {0}}),
            "there are collaborator lists for 3 experts, but 4 experts");
  EXPECT_EQ(error_of_lists(2, 2, {{1}, {0}, {0}, {0}}),
            "collaborator lists have 1 entries, but must have 2 (top_t) to 4 (num_experts)");
  const std::vector<int> five = {1, 2, 3, 0, 0};
  EXPECT_EQ(error_of_lists(2, 2, {five, five, five, five}),
            "collaborator lists have 5 entries, but must have 2 (top_t) to 4 (num_experts)");
  EXPECT_EQ(error_of({.num_groups = 2,
                      .top_groups = 2,
                      .constraint = CollaborationConstraint{1, lists_of(lists)}},
                     4),
            "a collaboration constraint is only defined for softmax scores without groups");
}

TEST(Router, RejectsCollaboratorsThatCannotBe) {
  auto lists = kListsOfFour;
  EXPECT_EQ(error_of_lists(2, 3, lists), "no error");  // an expert may stand last in its own list
  lists[2][1] = 4;
  EXPECT_EQ(error_of_lists(2, 2, lists), "collaborator 1 of expert 2 is 4, but experts are 0 to 3");
  lists[2][1] = -1;
  EXPECT_EQ(error_of_lists(2, 2, lists),
            "collaborator 1 of expert 2 is -1, but experts are 0 to 3");
  lists[2][1] = 2;
  EXPECT_EQ(error_of_lists(2, 2, lists),
            "expert 2 is listed as its own collaborator, at position 1 of its first 2");
  EXPECT_EQ(error_of_lists(2, 1, lists), "no error");  // past the first top_t nothing is read
  lists[2][1] = 0;
  EXPECT_EQ(error_of_lists(2, 2, lists),
            "expert 2 lists collaborator 0 twice, at positions 0 and 1");
}

template <class Call>
std::string message_of(Call call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    return error.what();
  }
  return "no error";
}

TEST(Router, NamesTheFirstLogitThatIsNotFinite) {
  const RoutingPolicy policies[] = {
      {.top_k = 2},
      {.scoring = Scoring::kSigmoid, .top_k = 2},
      {.top_k = 2, .num_groups = 5, .top_groups = 2},
      {.top_k = 2, .constraint = CollaborationConstraint{1, [] {
                                                           Matrix<ExpertId> lists(35, 1);
                                                           for (std::int64_t e = 0; e < 35; ++e)
                                                             lists(e, 0) = ExpertId{e == 0 ? 1 : 0};
                                                           return lists;
                                                         }()}}};
  for (const RoutingPolicy& policy : policies) {
    const Router router(policy, 35);
    for (const float bad : {kNan, -kNan, kInfinity, -kInfinity}) {
      for (const std::int64_t token : {0, 15, 16, 20}) {
        Matrix<float> logits(21, 35, -1.0f);
        logits(token, 34) = bad;
        logits(20, 33) = token == 20 ? -1.0f : bad;
        const std::string expected = fmt::format(
            "the logit of token {} for expert 34 is {}, but logits must be finite; "
            "look for an overflow in the layers before the router",
            token, bad);
        EXPECT_EQ(message_of([&] { router.route(logits); }), expected);
        EXPECT_EQ(message_of([&] { route_reference(policy, logits); }), expected);
      }
    }
  }
}

TEST(Router, RejectsShapesThatDoNotFit) {
  const Router router({.top_k = 2}, 4);
  const Matrix<float> logits(3, 4);
  Matrix<ExpertId> idx(3, 2);
  Matrix<float> weights(3, 2), narrow(3, 1);
  Matrix<ExpertId> few(2, 2);
  EXPECT_EQ(message_of([&] { router.route(Matrix<float>(3, 5)); }),
            "the logits are [3, 5], but the router has 4 experts");
  EXPECT_EQ(message_of([&] { router.route_into(logits, few, weights); }),
            "topk_idx is [2, 2], but must be [3, 2] for these logits");
  EXPECT_EQ(message_of([&] { router.route_into(logits, idx, narrow); }),
            "topk_weights is [3, 1], but must be [3, 2] for these logits");
  EXPECT_EQ(message_of([&] { router.route_into(logits, idx, weights); }), "no error");
}

}  // namespace
}  // namespace c2r
