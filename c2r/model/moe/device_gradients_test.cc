// A whole MoE layer forward and backward in the memory of devices that run late: the gradients are
// those of the naive layer in every mode, and bit for bit those of the pipeline in host memory with
// experts that round as a device does; each wait that is left out shows.
#include <gtest/gtest.h>

#include <mutex>

#include "c2r/model/moe/device_gradients_testing.h"
#include "c2r/model/moe/fake_device_testing.h"
#include "c2r/transport/in_process.h"

namespace c2r {
namespace {

using testing::DeviceGradientProblem;
using testing::DeviceGradientResults;
using testing::EarlyStream;
using testing::FakeWire;
using testing::LayerRun;

// Every rank on a device of its own. @param how of rank 0; the others ignore no wait
std::vector<DeviceGradientResults> gradients_on_devices(const DeviceGradientProblem& problem,
                                                        const LayerRun& how,
                                                        int* num_waits = nullptr) {
  std::vector<DeviceGradientResults> results(problem.dy.size());
  run_in_process(std::int32_t(problem.dy.size()), [&](Transport& transport) {
    const auto rank = index(transport.rank());
    LayerRun of_rank = how;
    if (rank != 0) of_rank.device.ignored_wait = -1;
    results[rank] = testing::on_fake_device(
        transport, of_rank, rank == 0 ? num_waits : nullptr, [&](const auto& on) {
          return testing::run_device_gradients(transport, problem.layer, problem.dy[rank],
                                               how.num_chunks, on);
        });
  });
  return results;
}

// The experts of a rank in host memory, rounded as on a device.
class RoundedExperts {
 public:
  RoundedExperts(const testing::DeviceLayerProblem& problem, RankId rank) {
    for (const ExpertWeights* expert : problem.slots(rank)) {
      slots_.push_back(expert == nullptr ? nullptr
                                         : std::make_unique<testing::RoundedExpert>(*expert));
      sums_.push_back(expert == nullptr ? testing::RoundedGradients{}
                                        : slots_.back()->no_gradients());
    }
  }

  void forward(std::span<const std::int64_t> offsets, const GatheredRows& rows,
               MatrixView<float> out) const {
    std::vector<float> x(std::size_t(rows.cols()));
    for (std::size_t slot = 0; slot < slots_.size(); ++slot) {
      for (std::int64_t row = offsets[slot]; row < offsets[slot + 1]; ++row) {
        rows.read_row(row, x);
        std::ranges::copy(slots_[slot]->forward(x), out.row(row).begin());
      }
    }
  }
  void backward(std::span<const std::int64_t> offsets, MatrixView<const float> rows,
                MatrixView<const float> dout, MatrixView<float> drows) {
    for (std::size_t slot = 0; slot < slots_.size(); ++slot) {
      const std::int64_t begin = offsets[slot], num_rows = offsets[slot + 1] - begin;
      if (num_rows == 0) continue;
      const auto rows_of_slot = [&](MatrixView<const float> from) {
        Matrix<float> to(num_rows, from.cols());
        for (std::int64_t r = 0; r < num_rows; ++r) {
          std::ranges::copy(from.row(begin + r), to.row(r).begin());
        }
        return to;
      };
      const Matrix<float> dx =
          slots_[slot]->backward(rows_of_slot(rows), rows_of_slot(dout), sums_[slot]);
      for (std::int64_t r = 0; r < num_rows; ++r) {
        std::ranges::copy(dx.row(r), drows.row(begin + r).begin());
      }
    }
  }
  const testing::RoundedGradients& gradients(std::size_t slot) const { return sums_[slot]; }

 private:
  std::vector<std::unique_ptr<testing::RoundedExpert>> slots_;
  std::vector<testing::RoundedGradients> sums_;
};

template <class Of>
bool has_values(const Matrix<double>& got, const Matrix<Of>& expected) {
  return std::ranges::equal(got.all(), expected.all(),
                            [](double a, Of b) { return a == double{b}; });
}

// The same pass in host memory gives the bits of `got`.
void expect_bits_of_the_host(Transport& transport, const DeviceGradientProblem& problem,
                             std::int32_t num_chunks, const DeviceGradientResults& got) {
  const auto rank = index(transport.rank());
  const TokenBatch& batch = problem.layer.exchange.batches[rank];
  ThreadPool pool(2);
  Dispatcher dispatcher(transport, pool, problem.layer.exchange.placement,
                        problem.layer.exchange.options);
  RoundedExperts experts(problem.layer, transport.rank());
  Pipeline pipeline(pool, num_chunks);
  KeptBatch kept;
  Matrix<float> y(batch.x.rows(), batch.x.cols()), dx = y;
  Matrix<float> dweights(batch.topk_weights.rows(), batch.topk_weights.cols());
  const PipelineWork forward{.experts = [&](const auto& offsets, const auto& rows, auto out) {
    experts.forward(offsets, rows, out);
  }};
  const PipelineBackwardWork backward{
      .experts = [&](const auto& offsets, const auto& rows, const auto& dout, auto drows) {
        experts.backward(offsets, rows, dout, drows);
      }};
  pipeline.run(dispatcher, batch.x, problem.kept_idx[rank], batch.topk_weights, batch.first_token,
               "layer 3", forward, y, &kept);
  pipeline.run_backward(kept,
                        {.dsum = problem.dy[rank],
                         .topk_weights = batch.topk_weights,
                         .dx = dx,
                         .dweights = dweights},
                        backward);
  EXPECT_EQ(got.y, y);
  EXPECT_EQ(got.dx, dx);
  EXPECT_EQ(got.dweights, dweights);
  for (std::size_t slot = 0; slot < got.dexperts.size(); ++slot) {
    const testing::RoundedGradients& expected = experts.gradients(slot);
    EXPECT_TRUE(has_values(got.dexperts[slot].gate, expected.gate)) << "slot " << slot;
    EXPECT_TRUE(has_values(got.dexperts[slot].up, expected.up)) << "slot " << slot;
    EXPECT_TRUE(has_values(got.dexperts[slot].down, expected.down)) << "slot " << slot;
  }
}

void check_device_gradients(const DeviceGradientProblem& problem, std::int32_t num_chunks) {
  const auto ep_size = std::int32_t(problem.dy.size());
  const testing::NearTheNaiveLayer naive(problem);
  FakeWire wire(ep_size);
  for (FakeWire* const over : {static_cast<FakeWire*>(nullptr), &wire}) {
    const auto got =
        gradients_on_devices(problem, {.num_chunks = num_chunks, .device = {.wire = over}});
    naive.expect(got);
    run_in_process(ep_size, [&](Transport& transport) {
      expect_bits_of_the_host(transport, problem, num_chunks, got[index(transport.rank())]);
    });
  }
  EXPECT_EQ(wire.deadlock(), "");
}

class DeviceGradientsOn : public ::testing::TestWithParam<Cluster> {};

TEST_P(DeviceGradientsOn, AreThoseOfTheNaiveLayerAndTheBitsOfTheHost) {
  std::uint64_t seed = 600;
  for (const DispatchOptions& options : testing::all_options(GetParam())) {
    const std::int32_t num_chunks = seed % 2 == 0 ? 1 : 3;
    SCOPED_TRACE(
        fmt::format("{}, {} chunks, seed {}", testing::to_string(options), num_chunks, seed));
    check_device_gradients(DeviceGradientProblem(options, seed++), num_chunks);
  }
}

INSTANTIATE_TEST_SUITE_P(Clusters, DeviceGradientsOn, ::testing::ValuesIn(testing::kFewClusters),
                         testing::kClusterName);

// Every token's best expert is the same one, and rank 0 has no tokens.
TEST(DeviceGradients, AreThoseOfTheNaiveLayerWithOneHotExpert) {
  for (const auto mode : {CopyMode::kPerExpert, CopyMode::kPerRank}) {
    testing::DeviceLayerProblem layer(
        {.traffic = {.cluster = {.ranks_per_node = 3}, .copy_mode = mode}}, 8);
    const std::int64_t num_experts = layer.exchange.placement.num_experts;
    for (std::size_t rank = 0; rank < 3; ++rank) {
      const std::int64_t num_tokens = rank == 0 ? 0 : 30;
      TokenBatch& batch = layer.exchange.batches[rank];
      batch.x = testing::random_matrix(num_tokens, layer.exchange.hidden, layer.rng);
      layer.logits[rank] = testing::random_matrix(num_tokens, num_experts, layer.rng);
      for (std::int64_t t = 0; t < num_tokens; ++t) layer.logits[rank](t, num_experts - 1) = 5;
      Routing routing = route_reference(layer.policy, layer.logits[rank]);
      batch.topk_idx = std::move(routing.topk_idx);
      batch.topk_weights = std::move(routing.topk_weights);
    }
    testing::number_tokens(layer.exchange.batches);
    check_device_gradients(DeviceGradientProblem(std::move(layer)), 2);
  }
}

bool are_same(const std::vector<DeviceGradientResults>& a,
              const std::vector<DeviceGradientResults>& b) {
  return std::ranges::equal(a, b, [](const auto& one, const auto& other) {
    return one.y == other.y && one.dx == other.dx && one.dweights == other.dweights &&
           one.dlogits == other.dlogits &&
           std::ranges::equal(one.dexperts, other.dexperts, [](const auto& x, const auto& y) {
             return x.gate == y.gate && x.up == y.up && x.down == y.down;
           });
  });
}

class BrokenGradientWaits : public ::testing::TestWithParam<bool> {};

TEST_P(BrokenGradientWaits, Show) {
  const DeviceGradientProblem problem(testing::problem_of_waits());
  // The results, or nothing if a rank failed.
  const auto run = [&](int ignored_wait, EarlyStream early, int* num_waits) {
    FakeWire wire(2);
    try {
      return gradients_on_devices(problem,
                                  {.device = {.wire = GetParam() ? nullptr : &wire,
                                              .ignored_wait = ignored_wait,
                                              .early = early}},
                                  num_waits);
    } catch (const Error&) {
      return std::vector<DeviceGradientResults>();
    }
  };
  int num_waits = 0;
  const auto expected = run(-1, EarlyStream::kNone, &num_waits);
  for (const EarlyStream early : testing::kStreamOrders) {
    EXPECT_TRUE(are_same(run(-1, early, &num_waits), expected));
  }
  EXPECT_GT(num_waits, 6 * (GetParam() ? 3 : 2));  // six exchanges, and copies to the host
  for (int wait = 0; wait < num_waits; ++wait) {
    EXPECT_TRUE(std::ranges::any_of(
        testing::kStreamOrders,
        [&](EarlyStream early) { return !are_same(run(wait, early, nullptr), expected); }))
        << "without wait " << wait;
  }
}

INSTANTIATE_TEST_SUITE_P(Networks, BrokenGradientWaits, ::testing::Bool(),
                         [](const auto& test) { return test.param ? "Staged" : "OfStreams"; });

}  // namespace
}  // namespace c2r
