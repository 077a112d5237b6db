// The router against its definition, bit for bit, over grids of shapes, policies and logits, on
// every instruction set that this processor has.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "c2r/core/every_target_testing.h"
#include "c2r/routing/policy.h"
#include "c2r/routing/policy_reference.h"

namespace c2r {
namespace {

// Builds with assertions are the slow ones, with sanitizers or without optimisation. They compare
// fewer tokens of the same shapes.
#ifdef C2R_ENABLE_ASSERTS
constexpr std::int64_t kManyTokens = 5'000, kTokensOfEachKind = 100;
constexpr int kNumSeeds = 1;
#else
constexpr std::int64_t kManyTokens = 1'000'000, kTokensOfEachKind = 500;
constexpr int kNumSeeds = 3;
#endif

enum class Kind { kNormal, kSmallIntegers, kBf16, kWide, kHuge, kTiny, kOneValue, kCloseTogether };
constexpr Kind kKinds[] = {Kind::kNormal,   Kind::kSmallIntegers, Kind::kBf16,
                           Kind::kWide,     Kind::kHuge,          Kind::kTiny,
                           Kind::kOneValue, Kind::kCloseTogether};

// Portable and fast: the sum of four 16-bit uniforms, with the variance of a normal.
class Random {
 public:
  explicit Random(std::uint64_t seed) : rng_(seed) {}
  float normal() {
    const std::uint64_t bits = rng_();
    std::int64_t sum = 0;
    for (int i = 0; i < 4; ++i) sum += static_cast<std::int64_t>((bits >> (16 * i)) & 0xffff);
    return static_cast<float>(sum - 2 * 65535) * (1.0f / 37837);
  }
  std::int64_t below(std::int64_t n) {
    return static_cast<std::int64_t>(rng_() % static_cast<std::uint64_t>(n));
  }

 private:
  std::mt19937_64 rng_;
};

float logit_of(Kind kind, Random& random) {
  const float x = random.normal();
  switch (kind) {
    case Kind::kNormal:
      return 3 * x;
    case Kind::kSmallIntegers:
      return std::round(x) * (random.below(2) == 0 ? 1.0f : -1.0f);  // both zeros
    case Kind::kBf16:
      return std::bit_cast<float>(std::bit_cast<std::uint32_t>(x) & 0xffff0000u);
    case Kind::kWide:  // apart by more than exp's range
      return 60 * x;
    case Kind::kHuge:
      return x * 0x1p126f;
    case Kind::kTiny:
      return x * 0x1p-130f;  // subnormal
    case Kind::kOneValue:
      return 0.1f;
    case Kind::kCloseTogether:  // a few units in the last place apart
      return std::bit_cast<float>(0x3f800000u + static_cast<std::uint32_t>(random.below(40)));
  }
  return 0;
}

Matrix<float> random_logits(std::int64_t num_tokens, std::int64_t num_experts, Kind kind,
                            Random& random) {
  Matrix<float> logits(num_tokens, num_experts);
  for (float& logit : logits.all()) logit = logit_of(kind, random);
  return logits;
}

// As in official files: a permutation of the other experts, then the expert itself.
Matrix<ExpertId> random_lists(std::int32_t num_experts, Random& random) {
  Matrix<ExpertId> lists(num_experts, num_experts);
  for (std::int32_t owner = 0; owner < num_experts; ++owner) {
    const auto row = lists.row(owner);
    for (std::int32_t e = 0; e < num_experts; ++e) row[static_cast<std::size_t>(e)] = ExpertId{e};
    std::swap(row[static_cast<std::size_t>(owner)], row.back());
    for (std::size_t i = row.size() - 1; i > 1; --i) {
      std::swap(row[i - 1], row[static_cast<std::size_t>(random.below(std::int64_t(i)))]);
    }
  }
  return lists;
}

CollaborationConstraint constraint(std::int32_t top_t, std::int32_t num_experts, Random& random) {
  return {.top_t = top_t, .collaborators = random_lists(num_experts, random)};
}

std::string describe(const RoutingPolicy& policy) {
  return fmt::format("scoring {}, top_k {}, norm {}, groups {} of {}, top_t {}",
                     static_cast<int>(policy.scoring), policy.top_k, policy.norm_topk_prob,
                     policy.top_groups, policy.num_groups,
                     policy.constraint ? policy.constraint->top_t : -1);
}

void expect_equal(const Routing& actual, const Routing& expected) {
  ASSERT_EQ(actual.topk_idx.rows(), expected.topk_idx.rows());
  for (std::int64_t t = 0; t < expected.num_tokens(); ++t) {
    const auto idx = actual.topk_idx.row(t), right_idx = expected.topk_idx.row(t);
    ASSERT_TRUE(std::ranges::equal(idx, right_idx)) << "token " << t;
    const auto weights = actual.topk_weights.row(t), right_weights = expected.topk_weights.row(t);
    const auto bits = [](float x) { return std::bit_cast<std::uint32_t>(x); };
    ASSERT_TRUE(std::ranges::equal(weights, right_weights, {}, bits, bits))
        << "token " << t << ": "
        << fmt::format("{} instead of {}", fmt::join(weights, " "), fmt::join(right_weights, " "));
  }
}

class RouterOnEveryTarget : public testing::EveryTarget {
 protected:
  void compare(const RoutingPolicy& policy, const Matrix<float>& logits) {
    const Routing expected = route_reference(policy, logits);
    const Router router(policy, static_cast<std::int32_t>(logits.cols()));
    on_every_target([&] { expect_equal(router.route(logits), expected); });
  }
};

// Every policy that is defined for these counts.
std::vector<RoutingPolicy> policies_for(std::int32_t num_experts, std::int32_t top_k,
                                        Random& random) {
  std::vector<RoutingPolicy> policies = {
      {.top_k = top_k},
      {.top_k = top_k, .norm_topk_prob = true},
      {.scoring = Scoring::kSoftmaxOverChosen, .top_k = top_k, .scale = 4},
      {.scoring = Scoring::kSigmoid, .top_k = top_k},
      {.scoring = Scoring::kSigmoid, .top_k = top_k, .norm_topk_prob = true, .scale = 2.5}};
  for (std::int32_t e = 0; e < num_experts; ++e) {
    policies.back().selection_bias.push_back(random.normal() / 4);
  }
  const std::int32_t least_t = std::max(1, top_k - 1);
  for (const std::int32_t top_t : {least_t, num_experts / 2, num_experts - 1}) {
    if (top_t < least_t || top_t >= num_experts) continue;
    for (const Scoring scoring : {Scoring::kSoftmax, Scoring::kSoftmaxOverChosen}) {
      policies.push_back({.scoring = scoring,
                          .top_k = top_k,
                          .constraint = constraint(top_t, num_experts, random)});
    }
  }
  return policies;
}

void add_grouped_policies(std::int32_t num_experts, std::int32_t top_k, Random& random,
                          std::vector<RoutingPolicy>& policies) {
  for (const std::int32_t num_groups : {2, 8, 16, num_experts}) {
    if (num_experts % num_groups != 0) continue;
    const std::int32_t group_size = num_experts / num_groups;
    const std::int32_t top_groups = std::max((num_groups + 1) / 2, (top_k - 1) / group_size + 1);
    RoutingPolicy v2{.top_k = top_k, .scale = 16, .num_groups = num_groups};
    v2.top_groups = top_groups;
    policies.push_back(v2);
    if (group_size < 2) continue;
    RoutingPolicy v3{.scoring = Scoring::kSigmoid,
                     .top_k = top_k,
                     .norm_topk_prob = true,
                     .num_groups = num_groups,
                     .top_groups = top_groups,
                     .group_score = GroupScore::kSumOfBestTwo};
    policies.push_back(v3);
    for (std::int32_t e = 0; e < num_experts; ++e) {
      v3.selection_bias.push_back(static_cast<float>(random.below(3)));  // ties between groups
    }
    policies.push_back(v3);
  }
}

TEST_F(RouterOnEveryTarget, MatchesTheReferenceOnEveryShape) {
  for (int seed = 0; seed < kNumSeeds; ++seed) {
    Random random(static_cast<std::uint64_t>(seed));
    for (const std::int32_t num_experts : {1, 2, 7, 8, 16, 20, 60, 64, 128, 160, 256, 384, 1024}) {
      for (const std::int32_t top_k : {1, 2, 3, 4, 6, 8, 9, 16, 17, 32}) {
        if (top_k > num_experts) continue;
        auto policies = policies_for(num_experts, top_k, random);
        add_grouped_policies(num_experts, top_k, random, policies);
        for (const RoutingPolicy& policy : policies) {
          const Kind kind = kKinds[random.below(std::ssize(kKinds))];
          const std::int64_t num_tokens = random.below(40);
          SCOPED_TRACE(fmt::format("seed {}, {} experts, {} tokens, kind {}, {}", seed, num_experts,
                                   num_tokens, static_cast<int>(kind), describe(policy)));
          compare(policy, random_logits(num_tokens, num_experts, kind, random));
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST_F(RouterOnEveryTarget, MatchesTheReferenceOnEveryKindOfLogits) {
  Random random(1);
  for (const Kind kind : kKinds) {
    for (const std::int32_t num_experts : {8, 60, 64, 256}) {
      const std::int32_t top_k = std::min(num_experts / 4, 8);
      auto policies = policies_for(num_experts, top_k, random);
      add_grouped_policies(num_experts, top_k, random, policies);
      const Matrix<float> logits = random_logits(kTokensOfEachKind, num_experts, kind, random);
      for (const RoutingPolicy& policy : policies) {
        SCOPED_TRACE(fmt::format("{} experts, kind {}, {}", num_experts, static_cast<int>(kind),
                                 describe(policy)));
        compare(policy, logits);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_F(RouterOnEveryTarget, IncludesMoreThanThePortableOne) {
  for (const std::int64_t target : targets()) RecordProperty(hwy::TargetName(target), 1);
#if defined(__x86_64__) || defined(__aarch64__)
  EXPECT_GE(targets().size(), 2u);
#endif
}

// kManyTokens tokens, and a tenth of that with ties, for each policy of one model's shape, with the
// best instruction set.
void compare_many(std::int32_t num_experts, const std::vector<RoutingPolicy>& policies) {
  constexpr std::int64_t kBatch = std::min<std::int64_t>(kManyTokens, 20'000);
  std::vector<Router> routers;
  for (const RoutingPolicy& policy : policies) routers.emplace_back(policy, num_experts);
  Random random(11);
  for (std::int64_t first = 0; first < kManyTokens + kManyTokens / 10; first += kBatch) {
    const Kind kind = first < kManyTokens ? Kind::kNormal : Kind::kSmallIntegers;
    const Matrix<float> logits = random_logits(kBatch, num_experts, kind, random);
    for (const Router& router : routers) {
      SCOPED_TRACE(fmt::format("tokens from {}, {}", first, describe(router.policy())));
      expect_equal(router.route(logits), route_reference(router.policy(), logits));
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
}

std::vector<RoutingPolicy> softmax_policies(std::int32_t num_experts, std::int32_t top_k,
                                            std::initializer_list<std::int32_t> top_ts) {
  Random random(5);
  std::vector<RoutingPolicy> policies = {{.top_k = top_k},
                                         {.top_k = top_k, .norm_topk_prob = true},
                                         {.scoring = Scoring::kSoftmaxOverChosen, .top_k = top_k}};
  for (const std::int32_t top_t : top_ts) {
    policies.push_back({.top_k = top_k, .constraint = constraint(top_t, num_experts, random)});
  }
  return policies;
}

TEST(ManyTokens, LlamaMoe) {
  auto policies = softmax_policies(8, 2, {});
  Random random(5);
  for (const std::int32_t top_t : {1, 5, 7}) {
    policies.push_back({.scoring = Scoring::kSoftmaxOverChosen,
                        .top_k = 2,
                        .scale = 4,
                        .constraint = constraint(top_t, 8, random)});
  }
  compare_many(8, policies);
}

TEST(ManyTokens, QwenMoe) {
  auto policies = softmax_policies(60, 4, {3, 30, 59});
  policies.push_back({.scoring = Scoring::kSigmoid, .top_k = 4});
  compare_many(60, policies);
}

TEST(ManyTokens, Olmoe) {
  compare_many(64, softmax_policies(64, 8, {7, 16, 32}));
}

TEST(ManyTokens, DeepSeekV2) {
  compare_many(160, {{.top_k = 6, .scale = 16, .num_groups = 8, .top_groups = 3}});
}

TEST(ManyTokens, DeepSeekV3) {
  Random random(3);
  RoutingPolicy v3{.scoring = Scoring::kSigmoid,
                   .top_k = 8,
                   .norm_topk_prob = true,
                   .scale = 2.5,
                   .num_groups = 8,
                   .top_groups = 4,
                   .group_score = GroupScore::kSumOfBestTwo};
  for (int e = 0; e < 256; ++e) v3.selection_bias.push_back(random.normal() / 10);
  compare_many(256, {v3});
}

TEST(ManyTokens, TwoHundredFiftySixExperts) {
  compare_many(256, softmax_policies(256, 8, {64}));
}

}  // namespace
}  // namespace c2r
