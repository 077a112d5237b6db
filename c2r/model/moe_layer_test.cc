#include "c2r/model/moe_layer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "c2r/core/testing.h"
#include "c2r/model/model.h"
#include "c2r/model/reference_moe.h"

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

}  // namespace
}  // namespace c2r
