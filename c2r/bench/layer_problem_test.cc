// Layer problems have the variants that were asked for, and each rank's own choices.
#include "c2r/bench/layer_problem.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "c2r/core/testing.h"
#include "c2r/placement/cost/reach.h"

namespace c2r {
namespace {

using testing::error_of;

TEST(LayerShape, IsFoundByName) {
  EXPECT_EQ(layer_shape("llama-moe").num_experts, 8);
  EXPECT_EQ(error_of([] { layer_shape("llama"); }),
            "a layer is qwen1.5-moe, llama-moe, olmoe, mixtral-8x7b or deepseek-v3; not 'llama'");
}

TEST(RandomExperts, RefuseAShapeWithoutWeights) {
  EXPECT_EQ(error_of([] {
              RandomExperts(LayerShape{"none", 8, 2, 0, 48, 0});
            }),
            "a layer of 8 experts, hidden 0, intermediate 48 and shared 0 has no weights");
}

// A trace of 6 sequences of 2 tokens; token t of layer l chooses experts t and t + 1 + l, mod 20.
std::filesystem::path small_trace() {
  auto path = testing::temporary_path("trace.safetensors");
  TraceWriter writer(path,
                     {.model = "small", .num_experts = 20, .top_k = 2, .layer_indices = {0, 3}},
                     /*has_weights=*/false);
  for (std::int32_t t = 0; t < 12; ++t) {
    if (t % 2 == 0) writer.start_sequence();
    for (std::int32_t layer = 0; layer < 2; ++layer) {
      const std::vector<ExpertId> chosen{ExpertId{t % 20}, ExpertId{(t + 1 + layer) % 20}};
      writer.append(layer, chosen, {}, "the test");
    }
  }
  writer.finish();
  return path;
}

TEST(LayerProblem, TakesExpertsAndChoicesFromATrace) {
  const Trace trace(small_trace());
  const LayerProblemOptions options{
      .shape = "llama-moe", .num_tokens = 3, .trace = &trace, .layer = 1, .has_experts = false};
  const auto problem = make_layer_problem(options, 2);
  EXPECT_EQ(problem.shape.num_experts, 20);
  EXPECT_EQ(problem.shape.top_k, 2);
  EXPECT_EQ(problem.shape.hidden, 4096);
  EXPECT_EQ(problem.routing, "layer 1 of small, all sequences");
  EXPECT_FALSE(problem.experts);
  // Sequences 1, 3 and 5 live on rank 1, so its first tokens are 2, 3 and 6.
  const auto choices = choices_of_rank(options, problem, RankId{1});
  EXPECT_EQ(
      std::vector(choices.all().begin(), choices.all().end()),
      (std::vector{ExpertId{2}, ExpertId{4}, ExpertId{3}, ExpertId{5}, ExpertId{6}, ExpertId{8}}));
}

TEST(LayerProblem, DrawsDistinctExpertsOfItsOwnForEachRank) {
  const LayerProblemOptions options{.shape = "olmoe", .num_tokens = 200, .has_experts = false};
  const auto problem = make_layer_problem(options, 2);
  EXPECT_EQ(problem.routing, "uniformly random choices");
  const auto first = choices_of_rank(options, problem, RankId{0});
  EXPECT_FALSE(std::ranges::equal(first.all(), choices_of_rank(options, problem, RankId{1}).all()));
  std::set<ExpertId> seen;
  for (std::int64_t t = 0; t < first.rows(); ++t) {
    const std::set<ExpertId> token(first.row(t).begin(), first.row(t).end());
    EXPECT_EQ(std::ssize(token), 8);
    seen.insert(token.begin(), token.end());
  }
  EXPECT_EQ(std::ssize(seen), 64);  // each is missed with probability (7/8)^200
}

TEST(LayerProblem, LeavesOutOneIngredientInEachVariantOfAnAblation) {
  LayerProblemOptions options{.shape = "olmoe", .num_chunks = 4, .has_experts = false};
  options.cluster = Cluster{.num_nodes = 2, .ranks_per_node = 2};
  options.dispatch.traffic.copy_mode = CopyMode::kPerNode;
  const auto plain = make_layer_problem(options, 4).variants;
  ASSERT_EQ(plain.size(), 2U);
  EXPECT_EQ(plain[0].name, "as asked");
  EXPECT_EQ(plain[0].dispatch.traffic.copy_mode, CopyMode::kPerNode);
  EXPECT_EQ(plain[0].dispatch.traffic.cluster, *options.cluster);
  EXPECT_EQ(plain[0].num_chunks, 4);
  EXPECT_EQ(plain[1].name, "baseline");
  EXPECT_EQ(plain[1].dispatch.traffic.copy_mode, CopyMode::kPerExpert);
  EXPECT_EQ(plain[1].num_chunks, 1);
  EXPECT_FALSE(plain[1].overlaps_shared);
  options.has_ablation = true;
  const auto all = make_layer_problem(options, 4).variants;
  ASSERT_EQ(all.size(), 6U);
  EXPECT_EQ(all[1].num_chunks, 1);  // without overlap
  EXPECT_EQ(all[1].dispatch.traffic.copy_mode, CopyMode::kPerNode);
  EXPECT_FALSE(all[3].dispatch.sums_before_return);                    // without local sums
  EXPECT_EQ(all[4].dispatch.traffic.copy_mode, CopyMode::kPerExpert);  // without deduplication
  EXPECT_EQ(all[4].num_chunks, 4);
}

TEST(LayerProblem, RefusesWhatDoesNotFit) {
  const Trace trace(small_trace());
  const auto error = [](const LayerProblemOptions& options, std::int32_t ep_size) {
    return error_of([&] {
      const auto problem = make_layer_problem(options, ep_size);
      (void)choices_of_rank(options, problem, RankId{1});
    });
  };
  EXPECT_EQ(error({.shape = "olmoe", .cluster = Cluster{.num_nodes = 2, .ranks_per_node = 2}}, 2),
            "the cluster has 2x2 ranks, but 2 are running");
  EXPECT_EQ(error({.shape = "olmoe", .num_tokens = -1}, 2),
            "num_tokens is -1, but must be at least 0");
  EXPECT_EQ(error({.shape = "olmoe", .trace = &trace, .layer = 2, .has_experts = false}, 2),
            trace.path() + ": has 2 layers, but layer 2 was asked for");
  EXPECT_EQ(error({.shape = "olmoe", .num_tokens = 7, .trace = &trace, .has_experts = false}, 2),
            trace.path() + ": has 6 tokens for rank 1, but 7 a rank were asked for");
  const Plan plan = plan_of(trace.header(), {.num_nodes = 1, .ranks_per_node = 2},
                            {place_contiguous(20, 2), place_contiguous(20, 2)}, {});
  EXPECT_EQ(error({.shape = "olmoe", .plan = &plan, .has_experts = false}, 2),
            "the plan is for 2 layers of 20 experts, but layer 0 of 64 was asked for");
}

}  // namespace
}  // namespace c2r
