// A whole MoE layer in the memory of devices that run late: routing, dispatch, experts and combine
// in chunks give the reference's bits in every mode, and each wait that is left out shows.
#include <gtest/gtest.h>

#include "c2r/model/moe/fake_device_testing.h"
#include "c2r/transport/in_process.h"

namespace c2r {
namespace {

using testing::DeviceLayerProblem;
using testing::EarlyStream;
using testing::FakeWire;
using testing::LayerRun;

// With the roundings of the device.
std::vector<Matrix<float>> rounded_sums(const DeviceLayerProblem& problem) {
  std::deque<testing::RoundedExpert> rounded;
  for (const ExpertWeights& expert : problem.experts) rounded.emplace_back(expert);
  return reference_exchange(problem.exchange.batches, problem.exchange.placement,
                            problem.exchange.options,
                            [&](ExpertId e, std::span<const float> x, std::span<float> y) {
                              std::ranges::copy(rounded[index(e)].forward(x), y.begin());
                            });
}

// This rank's part of the layer, on a device of its own.
Matrix<float> run_layer_on_device(Transport& transport, const DeviceLayerProblem& problem,
                                  const LayerRun& how, int* num_waits = nullptr) {
  return testing::on_fake_device(transport, how, num_waits, [&](const auto& on) {
    return testing::run_device_layer(transport, problem, how.num_chunks, on);
  });
}

class DeviceMoeLayerOn : public ::testing::TestWithParam<Cluster> {};

TEST_P(DeviceMoeLayerOn, GivesTheReferenceBitForBitOverBothNetworks) {
  std::uint64_t seed = 400;
  for (const DispatchOptions& options : testing::all_options(GetParam())) {
    const std::int32_t num_chunks = seed % 2 == 0 ? 1 : 3;
    SCOPED_TRACE(
        fmt::format("{}, {} chunks, seed {}", testing::to_string(options), num_chunks, seed));
    const DeviceLayerProblem problem(options, seed++);
    const auto expected = rounded_sums(problem);
    FakeWire wire(GetParam().ep_size());
    for (FakeWire* const over : {static_cast<FakeWire*>(nullptr), &wire}) {
      run_in_process(GetParam().ep_size(), [&](Transport& transport) {
        EXPECT_EQ(run_layer_on_device(transport, problem,
                                      {.num_chunks = num_chunks, .device = {.wire = over}}),
                  expected[index(transport.rank())]);
      });
    }
    EXPECT_EQ(wire.deadlock(), "");
  }
}

INSTANTIATE_TEST_SUITE_P(Clusters, DeviceMoeLayerOn, ::testing::ValuesIn(testing::kFewClusters),
                         testing::kClusterName);

class BrokenLayerWaits : public ::testing::TestWithParam<bool> {};

TEST_P(BrokenLayerWaits, Show) {
  const bool is_staged = GetParam();
  const DeviceLayerProblem problem = testing::problem_of_waits();
  const auto expected = rounded_sums(problem);
  // The sums, or nothing if a rank failed.
  const auto run = [&](int ignored_wait, EarlyStream early, int* num_waits) {
    std::vector<Matrix<float>> got(2);
    FakeWire wire(2);
    try {
      run_in_process(2, [&](Transport& transport) {
        const auto rank = index(transport.rank());
        got[rank] = run_layer_on_device(transport, problem,
                                        {.device = {.wire = is_staged ? nullptr : &wire,
                                                    .ignored_wait = rank == 0 ? ignored_wait : -1,
                                                    .early = early}},
                                        rank == 0 ? num_waits : nullptr);
      });
    } catch (const Error&) {
      got.clear();
    }
    return got;
  };
  int num_waits = 0;
  for (const EarlyStream early : testing::kStreamOrders)
    EXPECT_EQ(run(-1, early, &num_waits), expected);
  // The host waits for the choices and for the sums. Each of the two exchanges has a wait of the
  // network's stream for the rows and one of the compute stream for what has come; staged, the host
  // waits for the copy, too. With more chunks, waits come in an order that depends on the streams,
  // and the wait of a chunk may stand in for that of another.
  EXPECT_EQ(num_waits, is_staged ? 8 : 6);
  for (int wait = 0; wait < num_waits; ++wait) {
    EXPECT_TRUE(std::ranges::any_of(
        testing::kStreamOrders,
        [&](EarlyStream early) { return run(wait, early, nullptr) != expected; }))
        << "without wait " << wait;
  }
}

INSTANTIATE_TEST_SUITE_P(Networks, BrokenLayerWaits, ::testing::Bool(),
                         [](const auto& test) { return test.param ? "Staged" : "OfStreams"; });

}  // namespace
}  // namespace c2r
