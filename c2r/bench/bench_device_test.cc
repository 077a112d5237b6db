// The benchmark of a layer on devices, on fake devices: it counts, checks and times every variant.
#include "c2r/bench/bench_device.h"

#include <gtest/gtest.h>

#include "c2r/bench/bench_layer.h"
#include "c2r/core/cuda/fake_stream_testing.h"
#include "c2r/core/testing.h"
#include "c2r/dispatch/cuda/host_route_launcher_testing.h"
#include "c2r/dispatch/cuda/host_row_launcher_testing.h"
#include "c2r/experts/cuda/host_experts_testing.h"
#include "c2r/routing/cuda/host_select_launcher_testing.h"
#include "c2r/transport/device/staged_network.h"
#include "c2r/transport/in_process.h"

namespace c2r {
namespace {

// @param device must outlive what is returned
BenchDevice fake_bench_device(Transport& transport, testing::FakeDevice& device,
                              std::unique_ptr<GroupedProducts> products) {
  BenchDevice on{.name = "fake", .network_name = "staged", .copy_bytes_per_s = 2e9};
  on.compute = std::make_unique<testing::FakeStream>(device);
  on.travel = std::make_unique<testing::FakeStream>(device);
  on.network = std::make_unique<StagedNetwork>(transport, *on.compute, *on.travel);
  on.row_launcher = std::make_unique<testing::HostRowLauncher>();
  on.route_launcher = std::make_unique<testing::HostRouteLauncher>();
  on.select_launcher = std::make_unique<testing::HostSelectLauncher>();
  on.expert_launcher = std::make_unique<testing::HostExpertLauncher>();
  on.products = std::move(products);
  return on;
}

// Gives every expert's rows the outputs of the first.
class WrongProducts final : public GroupedProducts {
 public:
  void run(ProductKind kind, std::span<const DeviceProduct> products,
           DeviceStream& stream) override {
    std::vector<DeviceProduct> wrong(products.begin(), products.end());
    for (DeviceProduct& product : wrong) product.b = wrong.front().b;
    right_.run(kind, wrong, stream);
  }

 private:
  testing::HostProducts right_;
};

LayerProblem small_device_problem() {
  LayerProblem problem{.shape = {"small", 8, 2, 32, 48, 0},
                       .cluster = {.ranks_per_node = 2},
                       .experts = RandomExperts({"small", 8, 2, 32, 48, 0})};
  for (const CopyMode mode : {CopyMode::kPerRank, CopyMode::kPerExpert}) {
    problem.variants.push_back(
        {.name = std::string(name_of(mode)),
         .placement = place_contiguous(8, 2),
         .dispatch = {.traffic = {.cluster = problem.cluster, .copy_mode = mode}}});
  }
  problem.variants.back().num_chunks = 1;
  return problem;
}

// Token t chooses experts t and t + 3.
LayerBatch small_device_batch(std::int64_t num_tokens) {
  Matrix<ExpertId> idx(num_tokens, 2);
  for (std::int64_t t = 0; t < num_tokens; ++t) {
    idx(t, 0) = ExpertId(t % 8), idx(t, 1) = ExpertId((t + 3) % 8);
  }
  return make_layer_batch(std::move(idx), 32, 1);
}

template <class Products>
DeviceBenchResult bench_on_fakes(Transport& transport) {
  const LayerProblem problem = small_device_problem();
  testing::FakeDevice device;
  NoProgress progress;
  const auto make = [&](Transport& of_rank, const Cluster&) {
    return fake_bench_device(of_rank, device, std::make_unique<Products>());
  };
  return bench_device_layer(transport, {.num_rounds = 2, .product_size = 16}, problem,
                            small_device_batch(8), make, progress);
}

TEST(BenchDevice, CountsAndTimesEveryVariant) {
  run_in_process(2, [&](Transport& transport) {
    const DeviceBenchResult result = bench_on_fakes<testing::HostProducts>(transport);
    EXPECT_EQ(result.device, "fake");
    EXPECT_NEAR(result.rates.copy_bytes_per_s, 2e9, 1);
    EXPECT_GT(result.rates.product_flop_per_s, 0);
    EXPECT_GT(result.routing_s, 0);
    EXPECT_GT(result.routes_s, 0);
    ASSERT_EQ(result.variants.size(), 2U);
    EXPECT_EQ(result.variants[0].num_chunks, 2);
    EXPECT_EQ(result.variants[1].num_chunks, 1);
    for (const DeviceVariantResult& variant : result.variants) {
      EXPECT_EQ(variant.seconds.size(), 2U);
      EXPECT_EQ(variant.phase_seconds.rows(), 2);
      EXPECT_EQ(variant.phase_seconds.cols(), std::int64_t(kNumPhases));
      // 8 tokens on each rank choose each expert twice, so that a rank computes 4 experts' 16 rows.
      EXPECT_EQ(variant.max_rows, 16);
      EXPECT_EQ(variant.busiest_flop, 6.0 * 16 * 32 * 48);
      EXPECT_EQ(variant.least_bytes, 4 * 2 * 3 * 32 * 48 + 2 * 8 * 32 * 4);
      // Tokens 0 and 4 of 8 have both choices on one rank each way: 0 -> {0, 3}, 4 -> {4, 7}.
      const bool is_per_expert = &variant == &result.variants[1];
      const double num_sent = is_per_expert ? 16 : 14, own = is_per_expert ? 8 : 7;
      const double sent_bytes = 32 * (2 * (num_sent - own) + 4 * own);
      EXPECT_EQ(variant.gather_bytes, 4 * 32 * num_sent + sent_bytes);
      EXPECT_EQ(variant.returns_bytes, 2 * 4 * 32 * 8 + sent_bytes);
      EXPECT_NEAR(variant.bound_s,
                  std::max(variant.busiest_flop / result.rates.product_flop_per_s,
                           variant.least_bytes / result.rates.copy_bytes_per_s),
                  1e-12);
    }
  });
}

TEST(BenchDevice, RefusesToTimeWrongResults) {
  const std::string error = testing::error_of([] {
    run_in_process(2, [](Transport& transport) { (void)bench_on_fakes<WrongProducts>(transport); });
  });
  EXPECT_NE(error.find("away from the result of the host"), std::string::npos) << error;
}

}  // namespace
}  // namespace c2r
