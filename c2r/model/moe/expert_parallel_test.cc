// Compares experts on several ranks with those of one process.
#include "c2r/model/moe/expert_parallel.h"

#include <gtest/gtest.h>

#include <cmath>

#include "c2r/core/testing.h"
#include "c2r/dispatch/reference.h"
#include "c2r/model/model.h"
#include "c2r/model/moe/moe_layer.h"
#include "c2r/placement/testing_internal.h"
#include "c2r/transport/in_process.h"

namespace c2r {
namespace {

// The first MoE layer of a golden model, on random states that are distributed over ranks.
struct Problem {
  std::int64_t layer_idx = 0;  // of the model
  std::vector<TokenBatch> batches;
  ExpertParallelOptions options;
};

Matrix<float> random_states(std::int64_t num_tokens, std::int64_t hidden, std::mt19937_64& rng) {
  Matrix<float> x(num_tokens, hidden);
  for (float& v : x.all()) v = static_cast<float>(static_cast<double>(rng() >> 11) * 0x1p-51 - 2);
  return x;
}

// Some ranks have no token, some a few, some more than chunks.
Problem random_problem(const ModelConfig& config, const DispatchOptions& dispatch,
                       std::uint64_t seed) {
  std::mt19937_64 rng(seed);
  const std::int32_t ep_size = dispatch.traffic.cluster.ep_size();
  Problem problem{.layer_idx = config.moe_layers[0],
                  .options = {.dispatch = dispatch, .num_chunks = std::int32_t(1 + seed % 3)}};
  for (std::int64_t layer = 0; layer < config.num_moe_layers(); ++layer) {
    problem.options.placements.push_back(
        testing::random_placement(config.num_experts, ep_size, 2, rng));
  }
  for (std::int32_t rank = 0; rank < ep_size; ++rank) {
    const auto num_tokens = std::int64_t(rng() % 3 == 0 ? 0 : rng() % 12);
    problem.batches.push_back({.x = random_states(num_tokens, config.hidden, rng)});
  }
  return problem;
}

// What every rank's layer gives, beginning with zeros. [ep_size]
std::vector<Matrix<float>> run_on_ranks(const Model& model, const Problem& problem) {
  std::vector<Matrix<float>> sums(problem.batches.size());
  run_in_process(problem.options.dispatch.traffic.cluster.ep_size(), [&](Transport& transport) {
    ThreadPool pool(2);
    GroupedGemm gemm(Arithmetic::kF32, pool);
    ExpertParallelExperts experts(model.config(), Arithmetic::kF32, pool, transport,
                                  problem.options);
    MoeLayer layer(gemm, experts);
    const TokenBatch& batch = problem.batches[index(transport.rank())];
    Matrix<float>& sum = sums[index(transport.rank())];
    sum = {batch.x.rows(), batch.x.cols()};
    (void)layer.run(0, *model.weights().layers[std::size_t(problem.layer_idx)].moe,
                    Router(routing_policy(model.config(), 0), model.config().num_experts), batch.x,
                    sum);
  });
  return sums;
}

class ExpertParallelLayers : public ::testing::TestWithParam<Cluster> {
 protected:
  static Model model(const char* family) {
    return Model(std::filesystem::path(C2R_SOURCE_DIR) / "tests" / "golden" / "models" / family);
  }

  static void for_each_problem(const Model& model, const std::vector<CopyMode>& modes,
                               const std::vector<ElementType>& types,
                               const std::function<void(Problem&)>& check) {
    for (const CopyMode mode : modes) {
      for (const ElementType type : types) {
        for (std::uint64_t seed = 0; seed < 6; ++seed) {
          SCOPED_TRACE(fmt::format("{}, {}, seed {}", name_of(mode), name_of(type), seed));
          Problem problem = random_problem(
              model.config(),
              {.traffic = {.cluster = GetParam(), .copy_mode = mode}, .row_type = type}, seed);
          check(problem);
        }
      }
    }
  }
};

// One process, rank by rank.
TEST_P(ExpertParallelLayers, GiveTheBitsOfOneProcessWhereTheOrderOfSumsIsTheSame) {
  for (const char* family : {"llama_moe", "mixtral", "olmoe", "qwen2_moe", "qwen3_moe"}) {
    const Model model = this->model(family);
    ThreadPool pool(1);
    GroupedGemm gemm(Arithmetic::kF32, pool);
    LocalExperts experts(gemm);
    MoeLayer layer(gemm, experts);
    for_each_problem(model, {CopyMode::kPerExpert}, {ElementType::kF32}, [&](Problem& problem) {
      const auto got = run_on_ranks(model, problem);
      for (std::size_t rank = 0; rank < got.size(); ++rank) {
        const Matrix<float>& x = problem.batches[rank].x;
        Matrix<float> expected(x.rows(), x.cols());
        (void)layer.run(0, *model.weights().layers[std::size_t(problem.layer_idx)].moe,
                        Router(routing_policy(model.config(), 0), model.config().num_experts), x,
                        expected);
        EXPECT_EQ(got[rank], expected) << family << ", rank " << rank;
      }
    });
  }
}

// Every mode and row type: the reference of the exchange with this layer's experts, bit for bit.
TEST_P(ExpertParallelLayers, GiveTheBitsOfTheReferenceInEveryMode) {
  for (const char* family : {"llama_moe", "olmoe", "mixtral"}) {  // without a shared expert
    const Model model = this->model(family);
    const Router router(routing_policy(model.config(), 0), model.config().num_experts);
    ThreadPool pool(1);
    GroupedGemm gemm(Arithmetic::kF32, pool);
    ExpertMlps mlps(gemm);
    for_each_problem(
        model, {CopyMode::kPerExpert, CopyMode::kPerRank, CopyMode::kPerNode},
        {ElementType::kF32, ElementType::kBf16}, [&](Problem& problem) {
          const MoeWeights& moe = *model.weights().layers[std::size_t(problem.layer_idx)].moe;
          for (TokenBatch& batch : problem.batches) {
            // The routing of the tokens, as a layer that computes nothing returns it.
            struct NoExperts final : RoutedExperts {
              void run(const RoutedBatch& /*batch*/) override {}
            } none;
            Matrix<float> ignored = batch.x;
            Routing routing = MoeLayer(gemm, none).run(0, moe, router, batch.x, ignored);
            batch.topk_idx = std::move(routing.topk_idx);
            batch.topk_weights = std::move(routing.topk_weights);
          }
          const auto expected = reference_exchange(
              problem.batches, problem.options.placements[0], problem.options.dispatch,
              [&](ExpertId e, std::span<const float> x, std::span<float> y) {
                const auto width = std::ssize(x);
                const ExpertRows rows{
                    &moe.experts[index(e)], MatrixView(x.data(), 1, width), {y.data(), 1, width}};
                mlps.run({&rows, 1});
              });
          EXPECT_EQ(run_on_ranks(model, problem), expected) << family;
        });
  }
}

INSTANTIATE_TEST_SUITE_P(Clusters, ExpertParallelLayers,
                         ::testing::Values(Cluster{1, 1}, Cluster{1, 2}, Cluster{1, 3},
                                           Cluster{1, 4}, Cluster{2, 2}, Cluster{2, 4}),
                         testing::kClusterName);

TEST(ExpertParallelExperts, RefuseWhatIsNotForTheModelOrTheRanks) {
  const Model model(std::filesystem::path(C2R_SOURCE_DIR) / "tests/golden/models/mixtral");
  std::mt19937_64 rng(1);
  const auto error = [&](const std::vector<Placement>& placements, std::int32_t num_chunks) {
    return testing::error_of([&] {
      run_in_process(2, [&](Transport& transport) {
        ThreadPool pool(1);
        ExpertParallelExperts(model.config(), Arithmetic::kF32, pool, transport,
                              {.placements = placements,
                               .dispatch = {.traffic = {.cluster = {1, 2}}},
                               .num_chunks = num_chunks});
      });
    });
  };
  const Placement good = testing::random_placement(4, 2, 0, rng);
  EXPECT_NE(error({good}, 1).find("there are 1 placements, but the model has 2 layers"),
            std::string::npos);
  EXPECT_NE(error({good, testing::random_placement(5, 2, 0, rng)}, 1)
                .find("a placement is for 5 experts, but the model has 4"),
            std::string::npos);
  EXPECT_NE(error({good, testing::random_placement(4, 3, 0, rng)}, 1).find("ranks"),
            std::string::npos);
  EXPECT_NE(error({good, good}, 0).find("num_chunks is 0"), std::string::npos);
}

}  // namespace
}  // namespace c2r
