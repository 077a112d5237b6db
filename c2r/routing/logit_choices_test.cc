// Tests of choices from recorded logits, against their definitions and against group-limited
// routing of consecutive experts.
#include "c2r/routing/logit_choices.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "c2r/core/testing.h"
#include "c2r/routing/policy_reference.h"

namespace c2r {
namespace {

using testing::error_of;

Matrix<float> logits_of(std::initializer_list<std::initializer_list<float>> tokens) {
  Matrix<float> logits(std::ssize(tokens), std::ssize(*tokens.begin()));
  auto out = logits.all().begin();
  for (const auto& token : tokens) out = std::ranges::copy(token, out).out;
  return logits;
}

Matrix<ExpertId> choices_of(std::initializer_list<std::initializer_list<int>> tokens) {
  Matrix<ExpertId> choices(std::ssize(tokens), std::ssize(*tokens.begin()));
  auto out = choices.all().begin();
  for (const auto& token : tokens) {
    for (const int e : token) *out++ = ExpertId{e};
  }
  return choices;
}

// Few values, so that many are equal.
Matrix<float> random_logits(std::int64_t num_tokens, std::int64_t num_experts, std::mt19937& rng) {
  Matrix<float> logits(num_tokens, num_experts);
  for (float& logit : logits.all()) logit = float(rng() % 12) / 4 - 1;
  return logits;
}

TEST(CountOtherChoices, CountsTokensThatTheLogitsDoNotExplain) {
  const auto logits =
      logits_of({{1, 2, 3, 4}, {1, 2, 3, 4}, {5, 5, 5, 1}, {1, 2, 3, 4}, {1, 2, 3, 4}});
  // The best two; the second and the third; two of three equal ones; one of one choice; none.
  const auto choices = choices_of({{3, 2}, {2, 1}, {2, 0}, {-1, 3}, {-1, -1}});
  EXPECT_EQ(count_other_choices(choices, logits), 1);
  EXPECT_EQ(error_of([&] {
              count_other_choices(choices_of({{0, 4}}), logits_of({{1, 2, 3, 4}}));
            }),
            "token 0 names expert 4 in column 1, but there are 4 experts, and -1 for none");
  EXPECT_EQ(error_of([&] { count_other_choices(choices_of({{0}}), logits); }),
            "there are choices of 1 tokens, but logits of 5");
}

// Group 0 is experts 0 and 3, group 1 is 1, 2 and 4. The best expert, 3, opens group 0; with one
// group expert 0 follows, although 4, 2 and 1 are better.
TEST(ChooseInBestGroups, ChoosesAWorkedExample) {
  const auto logits = logits_of({{0, 1, 2, 4, 3}});
  const GroupLimit one{.group_of_expert = {0, 1, 1, 0, 1}, .num_groups = 2, .top_groups = 1};
  EXPECT_EQ(choose_in_best_groups(logits, one, 2), choices_of({{3, 0}}));
  GroupLimit both = one;
  both.top_groups = 2;
  EXPECT_EQ(choose_in_best_groups(logits, both, 3), choices_of({{3, 4, 2}}));
}

TEST(ChooseInBestGroups, EqualsGroupLimitedRoutingOfConsecutiveExperts) {
  for (unsigned seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 rng(seed);
    const std::int32_t num_groups = 1 + std::int32_t(seed % 5), size = 2 + std::int32_t(seed % 3);
    const std::int32_t top_groups = 1 + std::int32_t(rng() % unsigned(num_groups));
    const std::int32_t top_k = 1 + std::int32_t(rng() % unsigned(size * top_groups));
    const auto logits = random_logits(20, num_groups * size, rng);
    GroupLimit limit{.num_groups = num_groups, .top_groups = top_groups};
    for (std::int32_t e = 0; e < num_groups * size; ++e) limit.group_of_expert.push_back(e / size);
    const RoutingPolicy policy{.top_k = top_k, .num_groups = num_groups, .top_groups = top_groups};
    EXPECT_EQ(choose_in_best_groups(logits, limit, top_k),
              route_reference(policy, logits).topk_idx);
  }
}

// The definition: an expert is chosen if fewer than top_k experts of open groups are better, and a
// group is open if fewer than top_groups groups are better. Of equals the lower one is better.
TEST(ChooseInBestGroups, EqualsTheDefinitionForGroupsOfAnySize) {
  for (unsigned seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 rng(seed);
    const std::int32_t num_experts = 6 + std::int32_t(rng() % 20);
    GroupLimit limit{.num_groups = 3, .top_groups = 1 + std::int32_t(seed % 3)};
    for (std::int32_t e = 0; e < num_experts; ++e) {
      limit.group_of_expert.push_back(e < 6 ? e % 3 : std::int32_t(rng() % 3));
    }
    const auto logits = random_logits(10, num_experts, rng);
    const auto chosen = choose_in_best_groups(logits, limit, 2);
    for (std::int64_t t = 0; t < logits.rows(); ++t) {
      std::vector<std::pair<float, int>> of_group(3, {9, 0});  // the negated best logit, the group
      for (int g = 0; g < 3; ++g) of_group[std::size_t(g)].second = g;
      for (std::int32_t e = 0; e < num_experts; ++e) {
        auto& best = of_group[std::size_t(limit.group_of_expert[std::size_t(e)])].first;
        best = std::min(best, -logits(t, e));
      }
      const auto is_open = [&](std::int32_t e) {
        const auto& own = of_group[std::size_t(limit.group_of_expert[std::size_t(e)])];
        return std::ranges::count_if(of_group, [&](const auto& g) { return g < own; }) <
               limit.top_groups;
      };
      std::vector<std::pair<float, std::int32_t>> open;
      for (std::int32_t e = 0; e < num_experts; ++e) {
        if (is_open(e)) open.emplace_back(-logits(t, e), e);
      }
      std::ranges::sort(open);
      for (std::int64_t k = 0; k < 2; ++k) {
        EXPECT_EQ(chosen(t, k), ExpertId{open[std::size_t(k)].second}) << "token " << t;
      }
    }
  }
}

TEST(ChooseInBestGroups, RefusesLimitsThatLeaveTooFewExperts) {
  const auto logits = logits_of({{0, 1, 2, 4, 3}});
  const GroupLimit good{.group_of_expert = {0, 1, 1, 0, 1}, .num_groups = 2, .top_groups = 1};
  const auto error = [&](const GroupLimit& limit, std::int32_t top_k) {
    return error_of([&] { choose_in_best_groups(logits, limit, top_k); });
  };
  EXPECT_EQ(error(good, 3),
            "1 groups may have 2 experts together, from which top-3 cannot be chosen");
  GroupLimit bad = good;
  bad.top_groups = 3;
  EXPECT_EQ(error(bad, 2), "top_groups is 3, but must be in [1, 2], the number of groups");
  bad = good;
  bad.group_of_expert[4] = 2;
  EXPECT_EQ(error(bad, 2), "an expert is in group 2, but there are groups 0 to 1");
  bad.group_of_expert.pop_back();
  EXPECT_EQ(error(bad, 2), "there are groups of 4 experts, but logits of 5");
}

}  // namespace
}  // namespace c2r
