// Tests the traffic of engines: a small example by hand, and equality with the volumes of modes.
#include "c2r/plan/engines/engine_traffic.h"

#include <gtest/gtest.h>

#include "c2r/core/testing.h"
#include "c2r/plan/testing_internal.h"

namespace c2r {
namespace {

using testing::make_placement;

// Two nodes of two ranks, 8 experts; every token chooses 0, 2, 4 and 6, which contiguous experts
// spread over all ranks.
ModelTokenSets four_ranks_of_every_token() {
  TokenSets sets{.num_experts = 8, .num_tokens = 10, .experts = Matrix<ExpertId>(1, 4)};
  for (std::int32_t k = 0; k < 4; ++k) sets.experts(0, k) = ExpertId{2 * k};
  sets.multiplicity = {10};
  return {.header = {.num_experts = 8, .top_k = 4, .layer_indices = {0}}, .layers = {sets}};
}

EngineTraffic traffic_of(std::string_view engine, std::string_view backend) {
  static const ModelTokenSets sets = four_ranks_of_every_token();
  const std::vector<Placement> planned = {make_placement(8, {{0, 2}, {4, 6}, {1, 3}, {5, 7}})};
  NoProgress progress;
  const EngineBackend use = find_engine_backend(engine, backend);
  const PredictRequest request =
      for_engine(use, {.traffic = {.cluster = {.num_nodes = 2, .ranks_per_node = 2}}});
  return predict_engine_traffic(use, planned, tokens_of(sets), request.traffic, 1, progress);
}

TEST(EngineTraffic, CountsTheCopiesOfEachKernel) {
  const EngineTraffic deepep = traffic_of("sglang", "deepep");
  ASSERT_EQ(deepep.kernels.size(), 2u);
  // Normal, homes uniform. Today: one copy to the other node; the home needs one to its neighbour,
  // the relay keeps its own and forwards one.
  EXPECT_DOUBLE_EQ(deepep.kernels[0].today->dispatch, 3);
  // Planned: both ranks of node 0. From node 0: the neighbour. From node 1: the relay, which
  // forwards one.
  EXPECT_DOUBLE_EQ(deepep.kernels[0].planned->dispatch, 0.5 * 1 + 0.5 * 2);
  // Low latency: 4 copies, of which one stays; planned, two stay of tokens of node 0.
  EXPECT_DOUBLE_EQ(deepep.kernels[1].today->dispatch, 3);
  EXPECT_DOUBLE_EQ(deepep.kernels[1].planned->dispatch, 0.5 * 2 + 0.5 * 4);
  EXPECT_EQ(deepep.kernels[0].today->combine, deepep.kernels[0].today->dispatch);
  EXPECT_EQ(deepep.num_layers, 1);
}

TEST(EngineTraffic, ReturnsMoreCopiesThanItSendsWhereOnlyDispatchDeduplicates) {
  const EngineTraffic nccl = traffic_of("sglang", "nccl_ep");
  EXPECT_DOUBLE_EQ(nccl.kernels[0].planned->dispatch, 0.5 * 1 + 0.5 * 2);  // ranks
  EXPECT_DOUBLE_EQ(nccl.kernels[0].planned->combine, 0.5 * 2 + 0.5 * 4);   // experts
  EXPECT_EQ(nccl.kernels[1].planned->combine, nccl.kernels[1].planned->dispatch);
  EXPECT_DOUBLE_EQ(nccl.kernels[0].planned->bytes(
                       {.hidden = 10, .dispatch_element_bytes = 1, .combine_element_bytes = 2}),
                   1.5 * 10 + 3 * 20);
}

TEST(EngineTraffic, CountsNothingForKernelsThatNoCopyModeDescribes) {
  const EngineTraffic fused = traffic_of("sglang", "megamoe");
  EXPECT_FALSE(fused.kernels[0].today.has_value());
  EXPECT_EQ(fused.kernels[0].kernel.verdict,
            "the exchange is hidden under the experts' products: placement saves no time here");
  const PredictRequest request = for_engine(fused.use, {.traffic = {.cluster = {}}});
  EXPECT_EQ(request.base, "") << "savings stay measured against per-expert";
}

TEST(EngineTraffic, NamesTheBaseAfterTheEngine) {
  const PredictRequest request =
      for_engine(find_engine_backend("sglang", "deepep"), {.traffic = {.cluster = {}}});
  EXPECT_EQ(request.base, "SGLang, DeepEP normal");
  EXPECT_EQ(request.traffic.copy_mode, CopyMode::kPerNode);
  EXPECT_EQ(request.traffic.replica_rule, ReplicaRule::kLocalFirst);
}

TEST(EngineTraffic, TakesTheKernelOfThePhase) {
  EngineBackend use = find_engine_backend("sglang", "deepep");
  use.decodes = true;
  const PredictRequest request =
      for_engine(use, {.traffic = {.cluster = {}}, .layer_time = LayerTimeOptions{}});
  EXPECT_EQ(request.base, "SGLang, DeepEP low latency");
  EXPECT_EQ(request.traffic.copy_mode, CopyMode::kPerExpert);
  EXPECT_TRUE(request.layer_time->is_message_per_copy);
  use = find_engine_backend("megatron", "alltoall");
  use.decodes = true;
  EXPECT_EQ(kernel_of(use).title, "all-to-all") << "the only one";
  EXPECT_EQ(kernel_of(find_engine_backend("sglang", "nixl")).title, "NIXL EP low latency");
}

TEST(EngineTraffic, IsTheBaseOfTheWaterfall) {
  const ModelTokenSets sets = four_ranks_of_every_token();
  const Cluster cluster{.num_nodes = 2, .ranks_per_node = 2};
  const Plan plan =
      plan_of(sets.header, cluster, {make_placement(8, {{0, 2}, {4, 6}, {1, 3}, {5, 7}})}, {});
  NoProgress progress;
  const PredictRequest request =
      for_engine(find_engine_backend("sglang", "deepep"), {.traffic = {.cluster = cluster}});
  const auto steps = predict_waterfall(plan, tokens_of(sets), nullptr, request, 1, progress);
  ASSERT_EQ(steps.size(), 2u) << "neither per-expert nor deduplication";
  EXPECT_EQ(steps[0].prediction.placement, "SGLang, DeepEP normal");
  EXPECT_EQ(steps[0].prediction.wire_copies_per_token, std::vector<double>{3});
  EXPECT_EQ(steps[1].prediction.wire_copies_per_token, std::vector<double>{1.5});
}

TEST(Engines, SayHowAscendsEnginesSendCopies) {
  const auto kernel = [](std::string_view engine, std::string_view backend, bool decodes) {
    EngineBackend use = find_engine_backend(engine, backend);
    use.decodes = decodes;
    return kernel_of(use);
  };
  EXPECT_EQ(kernel("vllm-ascend", "", true).title, "MC2");
  EXPECT_EQ(kernel("vllm-ascend", "mc2", true).mode, CopyMode::kPerExpert);
  EXPECT_EQ(kernel("vllm-ascend", "alltoall", false).mode, CopyMode::kPerExpert);
  EXPECT_EQ(kernel("vllm-ascend", "allgather", false).mode, CopyMode::kAllGather);
  EXPECT_EQ(find_engine_backend("vllm-ascend", "mc2").backend->kernels[1].mode, std::nullopt)
      << "by servers, then by expert";
  EXPECT_EQ(kernel("vllm-ascend", "fused_mc2", false).verdict,
            "the exchange is hidden under the experts' products: placement saves no time here");
  EXPECT_EQ(kernel("omni-infer", "", false).title, "all-to-all");
  EXPECT_EQ(kernel("omni-infer", "", true).title, "MC2");
  EXPECT_EQ(kernel("omni-infer", "allgather", false).mode, CopyMode::kAllGather);
}

}  // namespace
}  // namespace c2r
