// The second row mover: handles and pipeline steps give the reference's bits on a device whose
// queue runs late, also beside ranks that have none.
#include <gtest/gtest.h>

#include <cmath>

#include "c2r/dispatch/pipeline_steps.h"
#include "c2r/dispatch/rows/fake_device_testing.h"
#include "c2r/dispatch/testing_internal.h"
#include "c2r/transport/in_process.h"

namespace c2r {
namespace {

using testing::ExchangeProblem;
using testing::FakeDevice;
using testing::FakeMover;
using testing::FakeMoverOptions;

// A layer on a device: the pipeline's steps are given to its queue, without polling.
class DeviceLayer {
 public:
  // @param gathers whether experts read rows where they were received
  DeviceLayer(Transport& transport, const ExchangeProblem& problem, const FakeMoverOptions& options,
              bool gathers = false)
      : transport_(transport),
        problem_(problem),
        gathers_(gathers),
        batch_(problem.batches[index(transport.rank())]),
        mover_(transport, device_, options),
        dispatcher_(transport, mover_, problem.placement, problem.options),
        x_(device_.allocate(batch_.x.rows(), problem.hidden)),
        sum_(device_.allocate(batch_.x.rows(), problem.hidden)) {
    device_.upload(batch_.x, x_);
    device_.upload(Matrix<float>(batch_.x.rows(), problem.hidden), sum_);
  }

  Matrix<float> run(std::int32_t num_chunks) {
    if (num_chunks == 1) {  // as ranks without a device call it
      handles_.push_back(dispatcher_.make_handle(batch_.topk_idx, batch_.topk_weights,
                                                 batch_.first_token, "layer 3"));
    } else {
      handles_ = dispatcher_.make_handles(batch_.topk_idx, batch_.topk_weights, batch_.first_token,
                                          num_chunks, "layer 3");
    }
    std::int64_t first = 0;
    for (const Handle& handle : handles_) {
      first_token_.push_back(std::exchange(first, first + handle.num_tokens()));
      rows_.push_back(device_.allocate(gathers_ ? 0 : handle.num_rows(), problem_.hidden));
      received_.emplace_back();
      out_.push_back(device_.allocate(handle.num_rows(), problem_.hidden));
    }
    for (const PipelineStep& step : pipeline_steps(num_chunks)) run_step(step);
    return device_.download(sum_);
  }
  bool host_copies_are_poison() const { return device_.host_copies_are_poison(); }

 private:
  MatrixView<float> tokens(MatrixView<float> of, std::int32_t chunk) const {
    const auto first = first_token_[std::size_t(chunk)];
    return of.rows(first, first + handles_[std::size_t(chunk)].num_tokens());
  }
  static MatrixView<const float> read(MatrixView<float> view) {
    return {view.data(), view.rows(), view.cols()};
  }
  void compute(std::int32_t chunk, std::span<const std::int64_t> offsets) {
    const auto rows = rows_[std::size_t(chunk)], out = out_[std::size_t(chunk)];
    device_.enqueue([this, offsets, rows, out, received = received_[std::size_t(chunk)]] {
      const GatheredRows in = gathers_ ? received : GatheredRows(device_.values(rows));
      testing::compute_experts(problem_, transport_.rank(), offsets, in, device_.values(out));
    });
  }
  void run_step(const PipelineStep& step) {
    Handle& handle = handles_[std::size_t(step.chunk)];
    const auto rows = rows_[std::size_t(step.chunk)], out = out_[std::size_t(step.chunk)];
    switch (step.kind) {
      case StepKind::kStartDispatch:
        return handle.start_dispatch(read(tokens(x_, step.chunk)));
      case StepKind::kLocalWork:
        return;
      case StepKind::kDispatchOwn:
        if (!gathers_) return handle.dispatch_own(rows);
        received_[std::size_t(step.chunk)] = handle.dispatch_own();
        return;
      case StepKind::kComputeOwn:
        return compute(step.chunk, handle.own_offsets());
      case StepKind::kWaitDispatch:
        return handle.wait();
      case StepKind::kFinishDispatch:
        if (!gathers_) return handle.finish_dispatch(rows);
        received_[std::size_t(step.chunk)] = handle.finish_dispatch();
        return;
      case StepKind::kComputeOthers:
        return compute(step.chunk, handle.offsets());
      case StepKind::kStartCombine:
        return handle.start_combine(read(out));
      case StepKind::kCombineOwn:
        return handle.combine_own(read(out));
      case StepKind::kFinishCombinesIfBack:
        return;
      case StepKind::kFinishCombines:
        for (std::int32_t chunk = 0; chunk <= step.chunk; ++chunk) {
          handles_[std::size_t(chunk)].finish_combine(tokens(sum_, chunk));
        }
    }
  }

  Transport& transport_;
  const ExchangeProblem& problem_;
  const bool gathers_;
  const TokenBatch& batch_;
  FakeDevice device_;
  FakeMover mover_;
  Dispatcher dispatcher_;
  MatrixView<float> x_, sum_;
  std::vector<Handle> handles_;
  std::vector<std::int64_t> first_token_;
  std::vector<MatrixView<float>> rows_, out_;  // of each chunk
  std::vector<GatheredRows> received_;         // the same
};

class FakeDeviceOn : public ::testing::TestWithParam<Cluster> {};

TEST_P(FakeDeviceOn, GivesTheReferenceBitForBit) {
  for (const DispatchOptions& options : testing::all_options(GetParam())) {
    for (const std::int32_t num_chunks : {1, 2, 5}) {
      SCOPED_TRACE(fmt::format("{}, {} chunks", testing::to_string(options), num_chunks));
      const ExchangeProblem problem =
          testing::random_problem(options, std::uint64_t(200 + num_chunks));
      const auto expected = testing::expected_sums(problem);
      run_in_process(problem.options.cluster.ep_size(), [&](Transport& transport) {
        DeviceLayer layer(transport, problem, {}, /*gathers=*/num_chunks != 2);
        EXPECT_EQ(layer.run(num_chunks), expected[index(transport.rank())]);
        EXPECT_TRUE(layer.host_copies_are_poison());
      });
    }
  }
}

// Ranks with a device and ranks without send each other the same bytes.
TEST_P(FakeDeviceOn, WorksWithRanksThatHaveNoDevice) {
  for (const DispatchOptions& options : testing::all_options(GetParam())) {
    SCOPED_TRACE(testing::to_string(options));
    const ExchangeProblem problem = testing::random_problem(options, 300);
    const auto expected = testing::expected_sums(problem);
    run_in_process(problem.options.cluster.ep_size(), [&](Transport& transport) {
      if (index(transport.rank()) % 2 == 0) {
        return testing::run_rank(transport, problem, expected, 1);
      }
      DeviceLayer layer(transport, problem, {});
      EXPECT_EQ(layer.run(1), expected[index(transport.rank())]);
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Clusters, FakeDeviceOn,
                         ::testing::Values(Cluster{1, 1}, Cluster{1, 3}, Cluster{2, 2},
                                           Cluster{2, 4}),
                         [](const auto& test) {
                           return fmt::format("{}x{}", test.param.num_nodes,
                                              test.param.ranks_per_node);
                         });

// What the device is for: a mover that sends before its queue has written the rows is found out.
TEST(FakeDevice, ShowsAMoverThatDoesNotWaitBeforeItSends) {
  ExchangeProblem problem =
      testing::random_problem({.cluster = {.ranks_per_node = 2}, .rule = ReplicaRule::kRandom}, 9);
  const auto expected = testing::expected_sums(problem);
  std::vector<Matrix<float>> got(2);
  run_in_process(2, [&](Transport& transport) {
    DeviceLayer layer(transport, problem, {.waits_before_sending = false});
    got[index(transport.rank())] = layer.run(1);
  });
  const auto has_poison = [](const Matrix<float>& sum) {
    return std::ranges::any_of(sum.all(), [](float v) { return std::isnan(v); });
  };
  EXPECT_TRUE(std::ranges::any_of(got, has_poison));
  EXPECT_FALSE(std::ranges::any_of(expected, has_poison));
}

}  // namespace
}  // namespace c2r
