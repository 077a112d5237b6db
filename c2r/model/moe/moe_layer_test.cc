// Compares the MoE layer of the decoder with its reference.
#include "c2r/model/moe/moe_layer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <deque>
#include <random>

#include "c2r/core/testing.h"
#include "c2r/experts/testing_internal.h"
#include "c2r/model/model.h"
#include "c2r/model/moe/reference_moe.h"

namespace c2r {
namespace {

// The MoE layers of every golden model, on random states.
class MoeLayers : public ::testing::TestWithParam<const char*> {};

TEST_P(MoeLayers, MatchTheReference) {
  const Model model(std::filesystem::path(C2R_SOURCE_DIR) / "tests" / "golden" / "models" /
                    GetParam());
  const ModelConfig& config = model.config();
  ThreadPool pool(2);
  GroupedGemm gemm(Arithmetic::kF32, pool);
  LocalExperts experts(gemm);
  MoeLayer layer(gemm, experts);
  for (unsigned seed = 0; seed < 10; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 rng(seed);
    const std::int64_t num_tokens = seed == 0 ? 0 : 1 + seed * seed;
    Matrix<float> x(num_tokens, config.hidden);
    for (float& v : x.all()) v = static_cast<float>(static_cast<double>(rng()) / 0x1p30 - 2);
    for (std::int64_t l = 0; l < config.num_moe_layers(); ++l) {
      const auto l_idx = static_cast<std::size_t>(config.moe_layers[static_cast<std::size_t>(l)]);
      const MoeWeights& weights = *model.weights().layers[l_idx].moe;
      RoutingPolicy policy = routing_policy(config, l);
      if (seed % 2 == 1 && config.top_k > 1) {  // constrained: expert e works with e + 1, e + 2 ...
        policy.constraint = {.top_t = config.top_k,
                             .collaborators = {config.num_experts, config.top_k}};
        for (std::int32_t e = 0; e < config.num_experts; ++e) {
          for (std::int32_t i = 0; i < config.top_k; ++i) {
            policy.constraint->collaborators(e, i) = ExpertId{(e + 1 + i) % config.num_experts};
          }
        }
      }
      Matrix<float> got(num_tokens, config.hidden, 0.5f);
      (void)layer.run(l, weights, Router(policy, config.num_experts), x, got);
      const Matrix<float> expected = reference_moe(weights, policy, x);
      float largest = 0;
      for (const float v : expected.all()) largest = std::max(largest, std::abs(v));
      for (std::size_t i = 0; i < got.all().size(); ++i) {
        // Sums of at most 32 products, three deep, in f32: far below 2^-23 x 32 x 3 x 2.
        ASSERT_NEAR(got.all()[i], expected.all()[i] + 0.5f, 200 * 0x1p-23f * (largest + 1));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, MoeLayers,
                         ::testing::Values("llama_moe", "mixtral", "olmoe", "qwen2_moe",
                                           "qwen3_moe"));

// Three experts of 4 x 3, and what runs them.
struct SmallLayer {
  SmallLayer() {
    std::mt19937 rng(11);
    for (int e = 0; e < 3; ++e) {
      const auto add = [&](std::int64_t outputs, std::int64_t inputs) {
        return stored.emplace_back(outputs, inputs, ElementType::kF32, rng).view;
      };
      experts.push_back({.gate = add(3, 4), .up = add(3, 4), .down = add(4, 3)});
    }
    x = testing::random_matrix(3, 4, rng);
  }

  Matrix<float> run(const Routing& routing) {
    Matrix<float> sum(x.rows(), x.cols());
    local.run({.moe_layer = 0, .experts = experts, .routing = routing, .x = x, .sum = sum});
    return sum;
  }

  std::deque<testing::RandomWeights> stored;
  std::vector<ExpertWeights> experts;
  Matrix<float> x;
  ThreadPool pool{2};
  GroupedGemm gemm{Arithmetic::kF32, pool};
  LocalExperts local{gemm};
};

TEST(LocalExperts, ComputeNothingForMaskedChoices) {
  SmallLayer layer;
  const ExpertId e0{0}, e1{1}, e2{2};
  Routing routing{.num_experts = 3, .topk_idx = {3, 2}, .topk_weights = {3, 2, 0.5F}};
  std::ranges::copy(std::vector{e2, e1, kNoExpert, e0, kNoExpert, kNoExpert},
                    routing.topk_idx.all().begin());
  const Matrix<float> got = layer.run(routing);
  // Each choice alone is the same bits, as its row is; so is the sum, which has one order.
  Routing one{.num_experts = 3, .topk_idx = {3, 1}, .topk_weights = {3, 1, 0.5F}};
  std::ranges::copy(std::vector{e2, e0, e2}, one.topk_idx.all().begin());
  Matrix<float> expected = layer.run(one);
  std::ranges::copy(std::vector{e1, e0, e2}, one.topk_idx.all().begin());
  const Matrix<float> second = layer.run(one);
  for (std::int64_t c = 0; c < 4; ++c) expected(0, c) += second(0, c), expected(2, c) = 0;
  EXPECT_EQ(got, expected);
}

TEST(LocalExperts, RefuseWhatIsNoChoiceOfTheLayer) {
  SmallLayer layer;
  Routing routing{.num_experts = 3, .topk_idx = {3, 2, kNoExpert}, .topk_weights = {3, 2}};
  routing.topk_idx(0, 0) = ExpertId{2};
  routing.topk_idx(2, 1) = ExpertId{3};
  EXPECT_EQ(testing::error_of([&] { (void)layer.run(routing); }),
            "token 2 names expert 3 in column 1, but there are 3 experts, and -1 for none");
  routing.topk_idx(2, 1) = ExpertId{-2};
  EXPECT_EQ(testing::error_of([&] { (void)layer.run(routing); }),
            "token 2 names expert -2 in column 1, but there are 3 experts, and -1 for none");
  const Routing few{.num_experts = 3, .topk_idx = {2, 2, kNoExpert}, .topk_weights = {2, 2}};
  EXPECT_EQ(testing::error_of([&] { (void)layer.run(few); }),
            "x has 3 rows and sum 3, but 2 tokens are routed");
}

}  // namespace
}  // namespace c2r
