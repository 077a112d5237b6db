#include "c2r/bench/bench_layer.h"

#include <gtest/gtest.h>

#include <numeric>

#include "c2r/core/testing.h"
#include "c2r/transport/in_process.h"

namespace c2r {
namespace {

using testing::error_of;

TEST(LayerShape, IsFoundByName) {
  EXPECT_EQ(layer_shape("llama-moe").num_experts, 8);
  EXPECT_EQ(error_of([] { layer_shape("llama"); }),
            "a layer is qwen1.5-moe, llama-moe, olmoe, mixtral-8x7b or deepseek-v3; not 'llama'");
}

TEST(Median, IsTheMiddle) {
  EXPECT_EQ(median({}), 0);
  EXPECT_EQ(median({3, 1, 2}), 2);
  EXPECT_EQ(median({4, 1, 2, 3}), 2.5);
}

// A small layer in every mode: bench_layer() itself checks results and volume.
TEST(BenchLayer, ChecksAndCountsEveryVariant) {
  const LayerShape shape{"small", 8, 2, 32, 48, 64};
  const RandomExperts experts(shape);
  const Cluster cluster{.num_nodes = 2, .ranks_per_node = 2};
  std::vector<LayerVariant> variants;
  for (const CopyMode mode : {CopyMode::kPerExpert, CopyMode::kPerRank, CopyMode::kPerNode}) {
    variants.push_back({.name = std::string(name_of(mode)),
                        .placement = place_contiguous(8, 4),
                        .dispatch = {.cluster = cluster, .mode = mode},
                        .num_chunks = 3,
                        .overlaps_shared = mode != CopyMode::kPerExpert});
  }
  run_in_process(4, [&](Transport& transport) {
    const auto me = std::int32_t(transport.rank());
    Matrix<ExpertId> idx(5 + me, 2);  // token t chooses experts t and t + 3
    for (std::int64_t t = 0; t < idx.rows(); ++t) {
      idx(t, 0) = ExpertId(t % 8), idx(t, 1) = ExpertId((t + 3) % 8);
    }
    ThreadPool pool(1);
    const LayerBenchOptions options{.shape = shape, .num_rounds = 2};
    NoProgress progress;
    const auto results = bench_layer(transport, pool, options, &experts,
                                     make_layer_batch(idx, shape.hidden, 1), variants, progress);
    ASSERT_EQ(results.size(), 3U);
    for (const VariantResult& result : results) {
      EXPECT_EQ(result.seconds.size(), 2U);
      EXPECT_EQ(result.compute_seconds.size(), 2U);
      EXPECT_GT(result.max_rows, 0);
      EXPECT_EQ(result.phase_seconds.rows(), 4);
      // What goes there comes back.
      const auto sum = [](const Matrix<std::int64_t>& bytes) {
        return std::accumulate(bytes.all().begin(), bytes.all().end(), std::int64_t{0});
      };
      EXPECT_GT(sum(result.metadata_bytes), 0);
      EXPECT_GT(sum(result.dispatch_bytes), 0);
      EXPECT_EQ(sum(result.dispatch_bytes), sum(result.combine_bytes));
    }
  });
}

}  // namespace
}  // namespace c2r
