// The row mover of devices: handles and pipeline steps give the reference's bits on a device whose
// streams run late, over both networks, also beside ranks that have no device.
#include "c2r/dispatch/cuda/device_row_mover.h"

#include <gtest/gtest.h>

#include <cmath>

#include "c2r/dispatch/cuda/device_layer_testing.h"
#include "c2r/dispatch/cuda/host_row_launcher_testing.h"
#include "c2r/dispatch/rows/host_row_mover.h"
#include "c2r/transport/device/fake_rank_testing.h"
#include "c2r/transport/in_process.h"

namespace c2r {
namespace {

using testing::DeviceLayer;
using testing::EarlyStream;
using testing::ExchangeProblem;
using testing::FakeRank;
using testing::FakeStream;
using testing::FakeWire;

struct DeviceRun {
  std::int32_t num_chunks = 1;
  bool gathers = false;
  testing::FakeRankOptions device;
};

// Runs this rank's part of the layer on a device of its own.
Matrix<float> run_on_device(Transport& transport, const ExchangeProblem& problem,
                            const DeviceRun& how, int* num_waits = nullptr) {
  FakeRank device(transport, how.device);
  testing::HostRowLauncher launcher;
  DeviceRowMover mover(device.compute(), device.network(), launcher);
  const auto experts = [&](std::span<const std::int64_t> offsets, const GatheredRows& rows,
                           MatrixView<float> out, DeviceStream& stream) {
    dynamic_cast<FakeStream&>(stream).enqueue(
        [&problem, &transport, copied = std::vector(offsets.begin(), offsets.end()), rows, out] {
          testing::compute_experts(problem, transport.rank(), copied, rows, out);
        });
  };
  Matrix<float> sum;
  {
    DeviceLayer layer(transport, problem, device.compute(), mover, experts, how.gathers);
    sum = layer.run(how.num_chunks);
  }
  const int waited = device.finish();
  if (num_waits != nullptr) *num_waits = waited;
  return sum;
}

bool has_poison(const Matrix<float>& sum) {
  return std::ranges::any_of(sum.all(), [](float v) { return std::isnan(v); });
}

ExchangeProblem device_problem(const DispatchOptions& options, std::uint64_t seed,
                               std::int64_t hidden) {
  ExchangeProblem problem = testing::random_problem(options, seed);
  std::mt19937_64 rng(seed);
  problem.hidden = hidden;
  for (auto& batch : problem.batches) {
    batch.x.reshape(batch.x.rows(), hidden);
    for (float& v : batch.x.all()) v = testing::random_value(rng);
  }
  return problem;
}

class DeviceRowMoverOn : public ::testing::TestWithParam<Cluster> {};

TEST_P(DeviceRowMoverOn, GivesTheReferenceBitForBitOverBothNetworks) {
  for (const DispatchOptions& options : testing::all_options(GetParam())) {
    for (const std::int32_t num_chunks : {1, 2, 5}) {
      SCOPED_TRACE(fmt::format("{}, {} chunks", testing::to_string(options), num_chunks));
      // 40 columns: five vectors for three threads; 5 columns: no vectors
      const ExchangeProblem problem =
          device_problem(options, std::uint64_t(200 + num_chunks), num_chunks == 5 ? 5 : 40);
      const auto expected = testing::expected_sums(problem);
      FakeWire wire(GetParam().ep_size());
      for (FakeWire* const over : {static_cast<FakeWire*>(nullptr), &wire}) {
        run_in_process(GetParam().ep_size(), [&](Transport& transport) {
          EXPECT_EQ(
              run_on_device(
                  transport, problem,
                  {.num_chunks = num_chunks, .gathers = num_chunks != 2, .device = {.wire = over}}),
              expected[index(transport.rank())]);
        });
      }
      EXPECT_EQ(wire.deadlock(), "");
    }
  }
}

// Ranks with a device and ranks without send each other the same bytes.
TEST_P(DeviceRowMoverOn, WorksWithRanksThatHaveNoDevice) {
  for (const DispatchOptions& options : testing::all_options(GetParam())) {
    SCOPED_TRACE(testing::to_string(options));
    const ExchangeProblem problem = testing::random_problem(options, 300);
    const auto expected = testing::expected_sums(problem);
    run_in_process(GetParam().ep_size(), [&](Transport& transport) {
      if (index(transport.rank()) % 2 == 0) {
        return testing::run_rank(transport, problem, expected, 1);
      }
      EXPECT_EQ(run_on_device(transport, problem, {}), expected[index(transport.rank())]);
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Clusters, DeviceRowMoverOn, ::testing::ValuesIn(testing::kFewClusters),
                         testing::kClusterName);

// Ranks with `num_tokens` tokens each, all of which choose the experts `choices`.
ExchangeProblem problem_of_choices(std::vector<std::int64_t> num_tokens,
                                   const std::vector<ExpertId>& choices) {
  ExchangeProblem problem{
      .placement = place_contiguous(6, std::int32_t(num_tokens.size())),
      .options = {.traffic = {.cluster = {.ranks_per_node = std::int32_t(num_tokens.size())}}},
      .hidden = 16};
  std::mt19937_64 rng(12);
  for (const std::int64_t n : num_tokens) {
    problem.batches.push_back(testing::random_batch(n, std::ssize(choices), problem.hidden, rng,
                                                    [&](auto&) { return choices; }));
  }
  testing::number_tokens(problem.batches);
  return problem;
}

// All tokens choose one expert, which is on the last rank.
TEST(DeviceRowMover, MovesAllRowsToOneHotExpert) {
  const ExchangeProblem problem = problem_of_choices({17, 0, 9}, {ExpertId{5}});
  const auto expected = testing::expected_sums(problem);
  run_in_process(3, [&](Transport& transport) {
    EXPECT_EQ(run_on_device(transport, problem, {.num_chunks = 2}),
              expected[index(transport.rank())]);
  });
}

// The backward pass of weights, bit for bit, with and without vectors and for rows in the middle.
TEST(DeviceRowMover, WeighsGradientsAsTheHost) {
  constexpr std::int64_t kRows = 9, kFirst = 2, kEnd = 8;
  std::mt19937_64 rng(13);
  for (const std::int64_t hidden : {1, 7, 8, 40, 257, 264, 1000}) {
    SCOPED_TRACE(fmt::format("hidden {}", hidden));
    Matrix<float> outputs(kRows, hidden), gradients = outputs, weights(kRows, 1),
                                          products(kRows, 1, 5.0F);
    for (auto* const of : {&outputs, &gradients, &weights}) {
      for (float& v : of->all()) v = testing::random_value(rng);
    }
    run_in_process(1, [&](Transport& transport) {
      FakeRank device(transport, {});
      DeviceStream& compute = device.compute();
      testing::HostRowLauncher launcher;
      DeviceRowMover mover(compute, device.network(), launcher);
      const testing::DeviceMatrix out(compute, outputs), g(compute, gradients), w(compute, weights),
          p(compute, products);
      const auto all = [&](const testing::DeviceMatrix& of) {
        return std::span(of.view().data(), std::size_t(kRows));
      };
      mover.weigh_gradients({.first = kFirst,
                             .end = kEnd,
                             .outputs = {out.view().data(), kRows, hidden},
                             .weights = all(w),
                             .gradients = g.view(),
                             .products = all(p)});
      ThreadPool pool(2);
      HostRowMover(transport, pool)
          .weigh_gradients({.first = kFirst,
                            .end = kEnd,
                            .outputs = outputs,
                            .weights = weights.all(),
                            .gradients = gradients,
                            .products = products.all()});
      EXPECT_EQ(g.download(), gradients);
      EXPECT_EQ(p.download(), products);
    });
    double product = 0;  // of the first row, before its gradient was weighed
    for (std::int64_t c = 0; c < hidden; ++c) {
      product += double{outputs(kFirst, c)} * gradients(kFirst, c) / weights(kFirst, 0);
    }
    EXPECT_NEAR(products(kFirst, 0), product, double(hidden) * 0x1p-20);
    EXPECT_EQ(products(0, 0), 5.0F);
    EXPECT_EQ(products(kEnd, 0), 5.0F);
  }
}

// What the device is for: each wait that is left out on a rank must show.
class BrokenWaits : public ::testing::TestWithParam<bool> {};

TEST_P(BrokenWaits, ShowAsPoison) {
  const bool is_staged = GetParam();
  const ExchangeProblem problem = problem_of_choices({7, 5}, {ExpertId{1}, ExpertId{4}});
  const auto expected = testing::expected_sums(problem);
  const auto run = [&](int ignored_wait, EarlyStream early, int* num_waits) {
    std::vector<Matrix<float>> got(2);
    FakeWire wire(2);
    run_in_process(2, [&](Transport& transport) {
      const auto rank = index(transport.rank());
      got[rank] = run_on_device(transport, problem,
                                {.device = {.wire = is_staged ? nullptr : &wire,
                                            .ignored_wait = rank == 0 ? ignored_wait : -1,
                                            .early = early}},
                                rank == 0 ? num_waits : nullptr);
    });
    return got;
  };
  int num_waits = 0;
  for (const EarlyStream early : testing::kStreamOrders)
    EXPECT_EQ(run(-1, early, &num_waits), expected);
  // Dispatch and combine: the network's stream waits for the rows, the host for their copies if
  // they are staged, the compute stream for what has come; and the host for the sums.
  EXPECT_EQ(num_waits, is_staged ? 7 : 5);
  for (int wait = 0; wait < num_waits; ++wait) {
    EXPECT_TRUE(std::ranges::any_of(testing::kStreamOrders,
                                    [&](EarlyStream early) {
                                      return std::ranges::any_of(run(wait, early, nullptr),
                                                                 has_poison);
                                    }))
        << "without wait " << wait;
  }
}

INSTANTIATE_TEST_SUITE_P(Networks, BrokenWaits, ::testing::Bool(),
                         [](const auto& test) { return test.param ? "Staged" : "OfStreams"; });

// 2 to 8 ranks in every mode, in chunks: the groups of calls never wait in a circle.
TEST(StreamNetwork, NeverWaitsInACircle) {
  for (const Cluster& cluster : {Cluster{1, 2}, Cluster{1, 3}, Cluster{2, 2}, Cluster{1, 5},
                                 Cluster{2, 3}, Cluster{1, 7}, Cluster{2, 4}, Cluster{4, 2}}) {
    for (const auto mode : {CopyMode::kPerExpert, CopyMode::kPerRank, CopyMode::kPerNode}) {
      for (const std::uint64_t seed : {1U, 2U, 3U}) {
        const ExchangeProblem problem =
            testing::random_problem({.traffic = {.cluster = cluster, .copy_mode = mode}}, seed);
        SCOPED_TRACE(testing::to_string(problem.options));
        FakeWire wire(cluster.ep_size());
        run_in_process(cluster.ep_size(), [&](Transport& transport) {
          (void)run_on_device(transport, problem, {.num_chunks = 3, .device = {.wire = &wire}});
        });
        EXPECT_EQ(wire.deadlock(), "");
      }
    }
  }
}

// The check itself: two ranks whose groups come in another order wait for each other.
TEST(StreamNetwork, ChecksTheOrderOfGroups) {
  using testing::CallGroup;
  const CallGroup to_1{.sends = {{1, 8}}}, from_0{.recvs = {{0, 8}}};
  const CallGroup from_1{.recvs = {{1, 4}}}, to_0{.sends = {{0, 4}}};
  EXPECT_EQ(testing::find_deadlock({{to_1, from_1}, {from_0, to_0}}), "");
  EXPECT_EQ(testing::find_deadlock({{to_1, from_1}, {to_0, from_0}}),
            "rank 0 waits; rank 1 waits; ");
  EXPECT_EQ(testing::find_deadlock({{to_1}, {{.recvs = {{0, 9}}}}}),
            "rank 0 sends 8 bytes to rank 1, which expects 9");
}

}  // namespace
}  // namespace c2r
