// The kernel's body gives the choices and weights of the reference bit for bit, and refuses what it
// cannot route; the gradients of logits are those of the weights' definition. The body that only
// chooses gives the choices of the reference.
#include "c2r/routing/cuda/device_router.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "c2r/core/cuda/fake_stream_testing.h"
#include "c2r/core/rng.h"
#include "c2r/core/testing.h"
#include "c2r/routing/cuda/choose-inl.h"
#include "c2r/routing/cuda/host_select_launcher_testing.h"
#include "c2r/routing/policy_reference.h"

namespace c2r {
namespace {

// A router on a fake device; logits are uploaded, results copied back.
class SelectOnFake {
 public:
  SelectOnFake(const RoutingPolicy& policy, std::int32_t num_experts)
      : stream_(device_), router_(policy, num_experts, stream_, launcher_), top_k_(policy.top_k) {}

  Routing route(const Matrix<float>& logits) {
    const std::int64_t num_choices = logits.rows() * top_k_;
    DeviceBuffer on_device(stream_, std::ssize(logits.all()) * 4), idx(stream_, num_choices * 4),
        weights(stream_, num_choices * 4);
    stream_.upload(std::as_bytes(logits.all()), on_device.data());
    const MatrixView<ExpertId> topk_idx(reinterpret_cast<ExpertId*>(idx.data()), logits.rows(),
                                        top_k_);
    const MatrixView<float> topk_weights(reinterpret_cast<float*>(weights.data()), logits.rows(),
                                         top_k_);
    router_.route_into(
        {reinterpret_cast<const float*>(on_device.data()), logits.rows(), logits.cols()}, topk_idx,
        topk_weights);
    Routing routing{.num_experts = std::int32_t(logits.cols()),
                    .topk_idx = {logits.rows(), top_k_},
                    .topk_weights = {logits.rows(), top_k_}};
    router_.check();
    std::copy_n(topk_idx.data(), num_choices, routing.topk_idx.all().begin());
    std::copy_n(topk_weights.data(), num_choices, routing.topk_weights.all().begin());
    return routing;
  }
  Matrix<float> backward(const Matrix<float>& logits, const Matrix<ExpertId>& topk_idx,
                         const Matrix<float>& dweights) {
    const auto upload = [&](auto from) {
      DeviceBuffer to(stream_, std::ssize(from) * 4);
      stream_.upload(std::as_bytes(from), to.data());
      return to;
    };
    const DeviceBuffer at = upload(logits.all()), chosen = upload(topk_idx.all()),
                       from = upload(dweights.all());
    Matrix<float> dlogits(logits.rows(), logits.cols(), kBefore);
    const DeviceBuffer to = upload(std::span<const float>(dlogits.all()));
    router_.backward_into(
        {reinterpret_cast<const float*>(at.data()), logits.rows(), logits.cols()},
        {reinterpret_cast<const ExpertId*>(chosen.data()), topk_idx.rows(), topk_idx.cols()},
        {reinterpret_cast<const float*>(from.data()), dweights.rows(), dweights.cols()},
        {reinterpret_cast<float*>(to.data()), dlogits.rows(), dlogits.cols()});
    stream_.synchronize();
    std::copy_n(reinterpret_cast<const float*>(to.data()), dlogits.all().size(),
                dlogits.all().begin());
    return dlogits;
  }
  static constexpr float kBefore = 2;  // what backward() adds to

 private:
  testing::FakeDevice device_;
  testing::FakeStream stream_;
  testing::HostSelectLauncher launcher_;
  DeviceRouter router_;
  std::int64_t top_k_;
};

CollaborationConstraint random_constraint(std::int32_t num_experts, std::int32_t top_k,
                                          std::mt19937_64& rng) {
  const std::int32_t least = std::max(1, top_k - 1);
  CollaborationConstraint constraint{
      .top_t = least + std::int32_t(uniform_below(std::uint64_t(num_experts - least), rng)),
      .collaborators = {num_experts, num_experts - 1}};
  for (std::int64_t e = 0; e < num_experts; ++e) {
    const auto row = constraint.collaborators.row(e);
    for (std::int64_t i = 0; i + 1 < num_experts; ++i) {
      row[std::size_t(i)] = ExpertId{std::int32_t(i < e ? i : i + 1)};
    }
    for (std::size_t i = row.size(); i > 1; --i) {
      std::swap(row[i - 1], row[uniform_below(i, rng)]);
    }
  }
  return constraint;
}

// Few distinct values, so that many logits are equal; both zeros, and values far apart.
Matrix<float> tied_logits(std::int64_t num_tokens, std::int64_t num_experts, std::mt19937_64& rng) {
  constexpr float kValues[] = {0.0F, -0.0F, 1.5F, -1.5F, 100.0F, -100.0F, 1e-30F, -3e38F, 0.25F};
  Matrix<float> logits(num_tokens, num_experts);
  for (float& v : logits.all()) v = kValues[uniform_below(std::size(kValues), rng)];
  return logits;
}

Matrix<float> random_logits(std::int64_t num_tokens, std::int64_t num_experts,
                            std::mt19937_64& rng) {
  Matrix<float> logits(num_tokens, num_experts);
  for (float& v : logits.all()) v = float(double(rng() >> 11) * 0x1p-50 - 4);
  return logits;
}

// @param kind from 0 to 7: every scoring, and each of them with the constraint
RoutingPolicy policy_of_kind(int kind, std::int32_t num_experts, std::int32_t top_k,
                             std::mt19937_64& rng) {
  RoutingPolicy policy{.scoring = kind & 1 ? Scoring::kSoftmaxOverChosen : Scoring::kSoftmax,
                       .top_k = top_k,
                       .norm_topk_prob = kind == 2,
                       .scale = kind & 2 ? 2.5F : 1.0F};
  if (kind & 4 && num_experts > 1) policy.constraint = random_constraint(num_experts, top_k, rng);
  return policy;
}

TEST(DeviceRouter, GivesTheReferenceBitForBit) {
  std::mt19937_64 rng(1);
  for (const std::int32_t num_experts : {1, 2, 8, 31, 32, 33, 60, 64, 128, 256, 384, 511, 512}) {
    for (const std::int32_t most : {1, 2, 4, 8, 16}) {
      const std::int32_t top_k = std::min(most, num_experts);
      for (int kind = 0; kind < 8; ++kind) {
        const RoutingPolicy policy = policy_of_kind(kind, num_experts, top_k, rng);
        SCOPED_TRACE(fmt::format("{} experts, top_k {}, kind {}", num_experts, top_k, kind));
        SelectOnFake router(policy, num_experts);
        for (const auto& logits :
             {random_logits(9, num_experts, rng), tied_logits(9, num_experts, rng)}) {
          const Routing expected = route_reference(policy, logits);
          const Routing routing = router.route(logits);
          EXPECT_EQ(routing.topk_idx, expected.topk_idx);
          EXPECT_EQ(routing.topk_weights, expected.topk_weights);
        }
      }
    }
  }
}

// Choices under a mask as c2r.torch makes it of a constraint: an expert's collaborators and itself.
std::vector<std::int64_t> choices_under_mask(const RoutingPolicy& policy,
                                             const Matrix<float>& logits) {
  const std::int64_t num_experts = logits.cols();
  const auto mask = std::make_unique<bool[]>(static_cast<std::size_t>(num_experts * num_experts));
  for (std::int64_t e = 0; policy.constraint && e < num_experts; ++e) {
    bool* const row = mask.get() + e * num_experts;
    row[e] = true;
    const auto list = policy.constraint->collaborators.row(e);
    for (std::int64_t i = 0; i < policy.constraint->top_t; ++i)
      row[index(list[std::size_t(i)])] = true;
  }
  std::vector<std::int64_t> chosen(static_cast<std::size_t>(logits.rows() * policy.top_k));
  const ChooseExperts kernel{.logits = std::as_bytes(logits.all()).data(),
                             .num_tokens = logits.rows(),
                             .num_experts = static_cast<std::int32_t>(num_experts),
                             .top_k = policy.top_k,
                             .mask = policy.constraint ? mask.get() : nullptr,
                             .topk_idx = chosen.data()};
  for (std::int64_t token = 0; token < kernel.num_blocks(); ++token) {
    kernel.run_in_warp(HostWarp{}, token);
  }
  return chosen;
}

TEST(ChooseExperts, GivesTheChoicesOfTheReference) {
  std::mt19937_64 rng(4);
  for (const std::int32_t num_experts : {1, 2, 31, 32, 33, 64, 512}) {
    for (const std::int32_t most : {1, 4, 16}) {
      for (const int kind : {0, 4}) {
        const std::int32_t top_k = std::min(most, num_experts);
        const RoutingPolicy policy = policy_of_kind(kind, num_experts, top_k, rng);
        SCOPED_TRACE(fmt::format("{} experts, top_k {}, kind {}", num_experts, top_k, kind));
        for (const auto& logits :
             {random_logits(9, num_experts, rng), tied_logits(9, num_experts, rng)}) {
          const Routing expected = route_reference(policy, logits);
          EXPECT_TRUE(std::ranges::equal(
              choices_under_mask(policy, logits), expected.topk_idx.all(), std::ranges::equal_to{},
              {}, [](ExpertId e) { return std::int64_t{static_cast<std::int32_t>(e)}; }));
        }
      }
    }
  }
}

TEST(ChooseExperts, LeavesPlacesEmptyWhereNoExpertIsLeft) {
  constexpr float kForbidden = -std::numeric_limits<float>::infinity();
  Matrix<float> logits(2, 4, kForbidden);
  logits(0, 2) = 1;
  EXPECT_EQ(choices_under_mask({.top_k = 3}, logits),
            (std::vector<std::int64_t>{2, -1, -1, -1, -1, -1}));
}

// What the weights of the chosen experts give by their definition, in double.
double weighted_sum(const RoutingPolicy& policy, std::span<const double> logits,
                    std::span<const ExpertId> chosen, std::span<const float> dweights) {
  double over_all = 0, over_chosen = 0, sum = 0;
  for (const double logit : logits) over_all += std::exp(logit);
  for (std::size_t k = 0; k < chosen.size(); ++k) {
    over_chosen += std::exp(logits[index(chosen[k])]);
    sum += std::exp(logits[index(chosen[k])]) * double{dweights[k]};
  }
  const bool is_over_all = policy.scoring == Scoring::kSoftmax && !policy.norm_topk_prob;
  return policy.scale * sum / (is_over_all ? over_all : over_chosen);
}

// A central difference with a step of 1e-5 is off by some 1e-10; each p has a relative error below
// (40 + num_experts / 16) 2^-24, a mean of at most 16 gradients below 1 another 18 of them, and
// scale is at most 2.5.
TEST(DeviceRouter, GivesLogitsTheGradientsOfFiniteDifferences) {
  constexpr double kStep = 1e-5;
  std::mt19937_64 rng(3);
  for (const std::int32_t num_experts : {1, 2, 8, 33, 128, 512}) {
    for (const std::int32_t most : {1, 4, 16}) {
      for (int kind = 0; kind < 8; ++kind) {
        const std::int32_t top_k = std::min(most, num_experts);
        const RoutingPolicy policy = policy_of_kind(kind, num_experts, top_k, rng);
        SCOPED_TRACE(fmt::format("{} experts, top_k {}, kind {}", num_experts, top_k, kind));
        SelectOnFake router(policy, num_experts);
        const Matrix<float> logits = random_logits(3, num_experts, rng);
        const Routing routing = router.route(logits);
        Matrix<float> dweights(3, top_k);
        for (float& v : dweights.all()) v = float(double(rng() >> 11) * 0x1p-52 - 1);
        dweights(1, top_k - 1) = 0;  // a dropped choice
        const Matrix<float> dlogits = router.backward(logits, routing.topk_idx, dweights);
        for (std::int64_t t = 0; t < 3; ++t) {
          std::vector<double> at(logits.row(t).begin(), logits.row(t).end());
          for (std::size_t e = 0; e < at.size(); ++e) {
            const double before = at[e];
            const auto value_at = [&](double logit) {
              at[e] = logit;
              return weighted_sum(policy, at, routing.topk_idx.row(t), dweights.row(t));
            };
            const double above = value_at(before + kStep), below = value_at(before - kStep);
            at[e] = before;
            ASSERT_NEAR(dlogits.row(t)[e] - SelectOnFake::kBefore, (above - below) / (2 * kStep),
                        1e-9 + (80 + num_experts / 16.0) * 2.5 * 0x1p-24)
                << "token " << t << ", expert " << e;
          }
        }
      }
    }
  }
}

TEST(DeviceRouter, RefusesGradientsOfAnotherShape) {
  SelectOnFake router({.top_k = 2}, 4);
  EXPECT_EQ(testing::error_of([&] {
              (void)router.backward({3, 4}, {3, 2}, {3, 1});
            }),
            "the gradients of 3 logits of 4 experts with 2 choices need matrices of such shapes, "
            "but logits are [3, 4], choices [3, 2], their gradients [3, 1] and those of logits "
            "[3, 4]");
}

TEST(DeviceRouter, RoutesNoTokens) {
  SelectOnFake router({.top_k = 2}, 4);
  EXPECT_EQ(router.route({0, 4}).topk_idx.rows(), 0);
  EXPECT_EQ(router.backward({0, 4}, {0, 2}, {0, 2}).rows(), 0);
}

TEST(DeviceRouter, NamesTheFirstLogitThatIsNotFinite) {
  SelectOnFake router({.top_k = 2}, 40);
  std::mt19937_64 rng(2);
  Matrix<float> logits = random_logits(5, 40, rng);
  const Matrix<float> finite = logits;
  logits(3, 1) = std::numeric_limits<float>::quiet_NaN();
  logits(2, 39) = std::numeric_limits<float>::infinity();
  EXPECT_EQ(testing::error_of([&] { (void)router.route(logits); }),
            "the logit of token 2 for expert 39 is not finite; look for an overflow in the layers "
            "before the router");
  EXPECT_EQ(router.route(finite).topk_idx.rows(), 5);  // the check does not stay
}

TEST(DeviceRouter, RefusesByNameWhatItCannotRoute) {
  const auto expect_refused = [](const RoutingPolicy& policy, std::int32_t num_experts,
                                 const std::string& message) {
    EXPECT_EQ(testing::error_of([&] { check_device_policy(policy, num_experts); }), message);
  };
  expect_refused({.top_k = 2}, 513,
                 "a device routes over at most 512 experts, not 513; use Router");
  expect_refused({.top_k = 17}, 64,
                 "a device routes at most 16 choices of a token, not 17; use Router");
  expect_refused(
      {.scoring = Scoring::kSigmoid, .top_k = 2}, 64,
      "a device routes by softmax only, but the policy's scores are sigmoids; use Router");
  expect_refused({.top_k = 2, .num_groups = 4, .top_groups = 2}, 64,
                 "a device routes without groups only, but the policy has 4 groups; use Router");
}

}  // namespace
}  // namespace c2r
