// Tests that a batch in chunks gives the results of a batch in one piece.
#include "c2r/dispatch/pipeline.h"

#include <gtest/gtest.h>

#include "c2r/core/testing.h"
#include "c2r/dispatch/pipeline_steps.h"
#include "c2r/dispatch/testing_internal.h"
#include "c2r/transport/in_process.h"

namespace c2r {
namespace {

using testing::ExchangeProblem;

class PipelineChunks : public ::testing::TestWithParam<Cluster> {};

TEST_P(PipelineChunks, GiveTheReferenceBitForBit) {
  for (const DispatchOptions& options : testing::all_options(GetParam())) {
    for (const std::int32_t num_chunks : {1, 2, 3, 7, 30}) {
      SCOPED_TRACE(fmt::format("{}, {} chunks", testing::to_string(options), num_chunks));
      const ExchangeProblem problem =
          testing::random_problem(options, std::uint64_t(100 + num_chunks));
      const auto expected = testing::expected_sums(problem);
      run_in_process(problem.options.traffic.cluster.ep_size(), [&](Transport& transport) {
        testing::run_pipeline(transport, problem, num_chunks, expected);
      });
    }
  }
}

TEST_P(PipelineChunks, GiveTheReferenceWhereEveryTokenChoosesOneExpert) {
  for (const DispatchOptions& options : testing::all_options(GetParam())) {
    const ExchangeProblem problem = testing::hot_expert_problem(options, 5);
    const auto expected = testing::expected_sums(problem);
    for (const std::int32_t num_chunks : {1, 4}) {
      SCOPED_TRACE(fmt::format("{}, {} chunks", testing::to_string(options), num_chunks));
      run_in_process(problem.options.traffic.cluster.ep_size(), [&](Transport& transport) {
        testing::run_pipeline(transport, problem, num_chunks, expected);
      });
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Clusters, PipelineChunks, ::testing::ValuesIn(testing::kFewClusters),
                         testing::kClusterName);

TEST(PipelineSteps, SendTheNextChunkBeforeThisOneIsComputed) {
  using enum StepKind;
  const std::vector<PipelineStep> one{
      {kStartDispatch, 0},  {kLocalWork, 0},     {kDispatchOwn, 0},  {kWaitDispatch, 0},
      {kFinishDispatch, 0}, {kComputeOthers, 0}, {kStartCombine, 0}, {kComputeOwn, 0},
      {kCombineOwn, 0},     {kFinishCombines, 0}};
  EXPECT_EQ(pipeline_steps(1), one);
  const std::vector<PipelineStep> two{
      {kStartDispatch, 0}, {kLocalWork, 0},      {kDispatchOwn, 0},          {kComputeOwn, 0},
      {kWaitDispatch, 0},  {kStartDispatch, 1},  {kFinishDispatch, 0},       {kComputeOthers, 0},
      {kStartCombine, 0},  {kCombineOwn, 0},     {kFinishCombinesIfBack, 0}, {kDispatchOwn, 1},
      {kWaitDispatch, 1},  {kFinishDispatch, 1}, {kComputeOthers, 1},        {kStartCombine, 1},
      {kComputeOwn, 1},    {kCombineOwn, 1},     {kFinishCombines, 1}};
  EXPECT_EQ(pipeline_steps(2), two);
}

// A transport matches what two ranks exchange by its order, so the order of starts is a contract.
TEST(PipelineSteps, StartADispatchBetweenTheCombinesOfTheTwoChunksBefore) {
  for (std::int32_t num_chunks = 1; num_chunks < 10; ++num_chunks) {
    std::vector<PipelineStep> starts;
    for (const PipelineStep& step : pipeline_steps(num_chunks)) {
      const bool is_start =
          step.kind == StepKind::kStartDispatch || step.kind == StepKind::kStartCombine;
      if (is_start) starts.push_back(step);
    }
    std::vector<PipelineStep> expected{{StepKind::kStartDispatch, 0}};
    for (std::int32_t chunk = 0; chunk < num_chunks; ++chunk) {
      if (chunk + 1 < num_chunks) expected.push_back({StepKind::kStartDispatch, chunk + 1});
      expected.push_back({StepKind::kStartCombine, chunk});
    }
    EXPECT_EQ(starts, expected);
  }
}

TEST(Pipeline, RefusesNoChunksAndTokensWithoutRows) {
  run_in_process(1, [](Transport& transport) {
    ThreadPool pool(1);
    Dispatcher dispatcher(transport, pool, place_contiguous(2, 1), {});
    EXPECT_EQ(testing::error_of([&] { Pipeline(pool, 0); }),
              "num_chunks is 0, but must be positive");
    Pipeline pipeline(pool, 1);
    const Matrix<float> x(3, 4), weights(2, 1);
    const Matrix<ExpertId> idx(2, 1);
    Matrix<float> sum(3, 4);
    EXPECT_EQ(testing::error_of(
                  [&] { pipeline.run(dispatcher, x, idx, weights, 0, "layer 5", {}, sum); }),
              "layer 5: x is 3x4 and sum is 3x4, but there are choices of 2 tokens");
  });
}

TEST(Pipeline, RefusesABackwardPassOfNothingAndOfAnotherShape) {
  run_in_process(1, [](Transport& transport) {
    ThreadPool pool(1);
    Dispatcher dispatcher(transport, pool, place_contiguous(2, 1), {});
    Pipeline pipeline(pool, 2);
    const Matrix<float> x(3, 4), weights(3, 1);
    const Matrix<ExpertId> idx(3, 1);
    Matrix<float> sum(3, 4), dweights(3, 2);
    KeptBatch kept;
    EXPECT_EQ(testing::error_of([&] { pipeline.run_backward(kept, {}, {}); }),
              "a backward pass needs what a forward pass has kept; give run() the batch");
    const PipelineWork work{.experts = [](const auto&, const auto&, auto) {}};
    pipeline.run(dispatcher, x, idx, weights, 0, "layer 5", work, sum, &kept);
    EXPECT_EQ(testing::error_of([&] {
                pipeline.run_backward(
                    kept, {.dsum = x, .topk_weights = weights, .dx = sum, .dweights = dweights},
                    {});
              }),
              "layer 5: dsum is 3x4, dx 3x4, topk_weights 3x1 and dweights 3x2, but there are 3 "
              "tokens of 4 values and 1 choices");
  });
}

}  // namespace
}  // namespace c2r
