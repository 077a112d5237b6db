// What runs on an NVIDIA GPU gives the bits of the host: routing, the kernels of its backward pass
// and that of weights, and layers whose rows are in the memory of the device, with all ranks on one
// GPU over the staging exchange.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "c2r/dispatch/cuda/cuda_row_launcher.h"
#include "c2r/dispatch/cuda/device_layer_testing.h"
#include "c2r/dispatch/rows/host_row_mover.h"
#include "c2r/routing/cuda/cuda_select_launcher.h"
#include "c2r/routing/cuda/select_backward-inl.h"
#include "c2r/routing/policy_reference.h"
#include "c2r/transport/device/staged_network.h"
#include "c2r/transport/in_process.h"
#include "tests/gpu/on_gpu.h"

namespace c2r {
namespace {

using testing::DeviceLayer;
using testing::ExchangeProblem;

TEST_F(OnGpu, RoutesAsTheReference) {
  const auto stream = make_cuda_stream(0);
  const auto launcher = make_cuda_select_launcher();
  std::mt19937_64 rng(1);
  for (const std::int32_t num_experts : {1, 8, 33, 60, 128, 512}) {
    for (const std::int32_t top_k : {1, std::min(4, num_experts), std::min(16, num_experts)}) {
      for (const bool divides : {false, true}) {
        SCOPED_TRACE(fmt::format("{} experts, top_k {}", num_experts, top_k));
        const RoutingPolicy policy{.top_k = top_k, .norm_topk_prob = divides, .scale = 1.5F};
        Matrix<float> logits(301, num_experts);
        // Quarters, so that many are equal.
        for (float& v : logits.all()) v = float(int(rng() % 64) - 32) / 4;
        DeviceRouter router(policy, num_experts, *stream, *launcher);
        DeviceBuffer on_device(*stream, logits.rows() * num_experts * 4),
            idx(*stream, logits.rows() * top_k * 4), weights(*stream, logits.rows() * top_k * 4);
        stream->upload(std::as_bytes(logits.all()), on_device.data());
        router.route_into(
            {reinterpret_cast<const float*>(on_device.data()), logits.rows(), num_experts},
            {reinterpret_cast<ExpertId*>(idx.data()), logits.rows(), top_k},
            {reinterpret_cast<float*>(weights.data()), logits.rows(), top_k});
        router.check();
        const Routing expected = route_reference(policy, logits);
        EXPECT_TRUE(std::ranges::equal(download<ExpertId>(*stream, idx), expected.topk_idx.all()));
        EXPECT_TRUE(
            std::ranges::equal(download<float>(*stream, weights), expected.topk_weights.all()));
      }
    }
  }
}

std::vector<float> random_floats(std::int64_t num_values, std::mt19937_64& rng) {
  std::vector<float> values(static_cast<std::size_t>(num_values));
  for (float& v : values) v = testing::random_value(rng);
  return values;
}

DeviceBuffer uploaded(DeviceStream& stream, std::span<const std::byte> from) {
  DeviceBuffer to(stream, std::ssize(from));
  stream.upload(from, to.data());
  return to;
}

float* floats_of(const DeviceBuffer& buffer) {
  return reinterpret_cast<float*>(buffer.data());
}

TEST_F(OnGpu, GivesLogitsTheGradientsOfTheBodyOnTheHost) {
  const auto stream = make_cuda_stream(0);
  const auto launcher = make_cuda_select_launcher();
  std::mt19937_64 rng(2);
  constexpr std::int64_t kTokens = 301;
  for (const std::int32_t num_experts : {1, 8, 33, 60, 128, 512}) {
    for (const std::int32_t top_k : {1, std::min(4, num_experts), std::min(16, num_experts)}) {
      for (const bool divides : {false, true}) {
        SCOPED_TRACE(fmt::format("{} experts, top_k {}", num_experts, top_k));
        Matrix<float> logits(kTokens, num_experts);
        for (float& v : logits.all()) v = testing::random_value(rng) * 4;
        const RoutingPolicy policy{.top_k = top_k, .norm_topk_prob = divides, .scale = 1.5F};
        const Routing routing = route_reference(policy, logits);
        const std::vector<float> dweights = random_floats(kTokens * top_k, rng);
        std::vector<float> dlogits(logits.all().size(), 0.5F);
        const DeviceBuffer at = uploaded(*stream, std::as_bytes(logits.all())),
                           idx = uploaded(*stream, std::as_bytes(routing.topk_idx.all())),
                           from = uploaded(*stream, std::as_bytes(std::span(dweights))),
                           to = uploaded(*stream, std::as_bytes(std::span(dlogits)));
        DeviceRouter router(policy, num_experts, *stream, *launcher);
        router.backward_into({floats_of(at), kTokens, num_experts},
                             {reinterpret_cast<const ExpertId*>(idx.data()), kTokens, top_k},
                             {floats_of(from), kTokens, top_k},
                             {floats_of(to), kTokens, num_experts});
        const SelectGradients on_host{
            .logits = logits.all().data(),
            .num_tokens = kTokens,
            .num_experts = num_experts,
            .top_k = top_k,
            .divides_by_chosen = divides,
            .scale = 1.5F,
            .topk_idx = reinterpret_cast<const std::int32_t*>(routing.topk_idx.all().data()),
            .dweights = dweights.data(),
            .dlogits = dlogits.data()};
        for (std::int64_t t = 0; t < kTokens; ++t) add_select_gradients(HostWarp{}, on_host, t);
        EXPECT_EQ(download<float>(*stream, to), dlogits);
      }
    }
  }
}

TEST_F(OnGpu, WeighsGradientsAsTheHost) {
  const auto stream = make_cuda_stream(0);
  const auto launcher = make_cuda_row_launcher();
  std::mt19937_64 rng(3);
  constexpr std::int64_t kRows = 77, kFirst = 3, kEnd = 70;
  for (const std::int64_t hidden : {1, 37, 264, 520, 4096}) {
    SCOPED_TRACE(fmt::format("hidden {}", hidden));
    const std::vector<float> outputs = random_floats(kRows * hidden, rng),
                             weights = random_floats(kRows, rng);
    std::vector<float> gradients = random_floats(kRows * hidden, rng), products(kRows, 0.5F);
    const DeviceBuffer out = uploaded(*stream, std::as_bytes(std::span(outputs))),
                       w = uploaded(*stream, std::as_bytes(std::span(weights))),
                       g = uploaded(*stream, std::as_bytes(std::span(gradients))),
                       p = uploaded(*stream, std::as_bytes(std::span(products)));
    run_in_process(1, [&](Transport& transport) {
      StagedNetwork network(transport, *stream, *stream);
      DeviceRowMover on_device(*stream, network, *launcher);
      on_device.weigh_gradients({.first = kFirst,
                                 .end = kEnd,
                                 .outputs = {floats_of(out), kRows, hidden},
                                 .weights = {floats_of(w), kRows},
                                 .gradients = {floats_of(g), kRows, hidden},
                                 .products = {floats_of(p), kRows}});
      ThreadPool pool(1);
      HostRowMover on_host(transport, pool);
      on_host.weigh_gradients({.first = kFirst,
                               .end = kEnd,
                               .outputs = {outputs.data(), kRows, hidden},
                               .weights = weights,
                               .gradients = {gradients.data(), kRows, hidden},
                               .products = products});
    });
    EXPECT_EQ(download<float>(*stream, g), gradients);
    EXPECT_EQ(download<float>(*stream, p), products);
  }
}

// The experts of the test are computed on the host, between two copies.
void compute_on_host(const ExchangeProblem& problem, RankId rank,
                     std::span<const std::int64_t> offsets, const GatheredRows& rows,
                     MatrixView<float> out, DeviceStream& stream) {
  const std::int64_t first = offsets.front(), num_rows = offsets.back() - first;
  if (num_rows == 0) return;
  const std::int64_t row_bytes = rows.cols() * 4;
  const PinnedBuffer pinned(stream, num_rows * row_bytes);
  const auto size = static_cast<std::size_t>(num_rows * row_bytes);
  stream.copy_to_pinned({rows.row(first).elements, size}, pinned.data());
  stream.record()->synchronize();
  Matrix<float> in(out.rows(), out.cols()), computed = in;
  std::memcpy(in.row(first).data(), pinned.data(), size);
  testing::compute_experts(problem, rank, offsets, in, computed);
  stream.upload(std::as_bytes(computed.all()).subspan(std::size_t(first * row_bytes), size),
                reinterpret_cast<std::byte*>(out.row(first).data()));
}

TEST_F(OnGpu, MovesRowsAsTheReference) {
  const auto launcher = make_cuda_row_launcher();
  for (const Cluster& cluster : {Cluster{1, 1}, Cluster{1, 3}, Cluster{2, 2}}) {
    for (const DispatchOptions& options : testing::all_options(cluster)) {
      for (const std::int32_t num_chunks : {1, 3}) {
        SCOPED_TRACE(fmt::format("{}, {} chunks", testing::to_string(options), num_chunks));
        ExchangeProblem problem = testing::random_problem(options, 7);
        problem.hidden = num_chunks == 1 ? 520 : 37;  // with and without vectors
        std::mt19937_64 rng(8);
        for (auto& batch : problem.batches) {
          batch.x.reshape(batch.x.rows(), problem.hidden);
          for (float& v : batch.x.all()) v = testing::random_value(rng);
        }
        const auto expected = testing::expected_sums(problem);
        run_in_process(cluster.ep_size(), [&](Transport& transport) {
          const auto compute = make_cuda_stream(0), copies = make_cuda_stream(0);
          StagedNetwork network(transport, *compute, *copies);
          DeviceRowMover mover(*compute, network, *launcher);
          const auto experts = [&](std::span<const std::int64_t> offsets, const GatheredRows& rows,
                                   MatrixView<float> out, DeviceStream& stream) {
            compute_on_host(problem, transport.rank(), offsets, rows, out, stream);
          };
          DeviceLayer layer(transport, problem, *compute, mover, experts, /*gathers=*/false);
          EXPECT_EQ(layer.run(num_chunks), expected[index(transport.rank())]);
        });
      }
    }
  }
}

}  // namespace
}  // namespace c2r
