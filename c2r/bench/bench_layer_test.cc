// Tests of the benchmark of one layer: that it checks its variants, and what it refuses.
#include "c2r/bench/bench_layer.h"

#include <gtest/gtest.h>

#include <numeric>

#include "c2r/core/testing.h"
#include "c2r/transport/in_process.h"

namespace c2r {
namespace {

using testing::error_of;

// A small layer in every mode: bench_layer() itself checks results and volume.
TEST(BenchLayer, ChecksAndCountsEveryVariant) {
  const LayerShape shape{"small", 8, 2, 32, 48, 64};
  const RandomExperts experts(shape);
  const Cluster cluster{.num_nodes = 2, .ranks_per_node = 2};
  std::vector<LayerVariant> variants;
  for (const CopyMode mode : {CopyMode::kPerExpert, CopyMode::kPerRank, CopyMode::kPerNode}) {
    variants.push_back({.name = std::string(name_of(mode)),
                        .placement = place_contiguous(8, 4),
                        .dispatch = {.traffic = {.cluster = cluster, .copy_mode = mode}},
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

TEST(BenchLayer, RefusesABatchOfAnotherShape) {
  const LayerShape shape{"small", 8, 2, 32, 48, 64};
  const RandomExperts experts(shape);
  const auto error = [&](const LayerBatch& batch, const LayerBenchOptions& options,
                         const RandomExperts* given) {
    return error_of([&] {
      run_in_process(1, [&](Transport& transport) {
        ThreadPool pool(1);
        NoProgress progress;
        (void)bench_layer(transport, pool, options, given, batch, {}, progress);
      });
    });
  };
  const LayerBatch batch = make_layer_batch(Matrix<ExpertId>(3, 2, ExpertId{1}), 32, 1);
  EXPECT_EQ(error(batch, {.shape = shape}, &experts), "no error");
  EXPECT_EQ(
      error(make_layer_batch(Matrix<ExpertId>(3, 2, ExpertId{1}), 16, 1), {.shape = shape},
            &experts),
      "rank 0: the batch has 3x16 values, 3x2 choices and 3x2 weights, but the layer has hidden 32 "
      "and top-2");
  EXPECT_EQ(error(batch, {.shape = shape, .num_rounds = 0}, &experts),
            "rank 0: num_rounds is 0, but must be at least 1");
  EXPECT_EQ(error(batch, {.shape = shape}, nullptr),
            "rank 0: there are no experts to compute with");
}

}  // namespace
}  // namespace c2r
