// A whole MoE layer on an NVIDIA GPU, all ranks on one GPU over the staging exchange: routing,
// dispatch, experts and combine in chunks are near the exact layer, and so are all gradients.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "c2r/dispatch/cuda/cuda_row_launcher.h"
#include "c2r/experts/cublas/cublas_products.h"
#include "c2r/experts/cuda/cuda_expert_launcher.h"
#include "c2r/experts/cuda/device_experts_testing.h"
#include "c2r/model/moe/device_gradients_testing.h"
#include "c2r/routing/cuda/cuda_select_launcher.h"
#include "c2r/transport/device/staged_network.h"
#include "c2r/transport/in_process.h"
#include "tests/gpu/on_gpu.h"

namespace c2r {
namespace {

// The layer with exact experts, or the same of the magnitudes of all numbers.
std::vector<Matrix<float>> layer_sums(const testing::DeviceLayerProblem& problem,
                                      bool of_magnitudes) {
  std::vector<TokenBatch> batches = problem.exchange.batches;
  std::vector<ExactExpert> experts;
  for (const ExpertWeights& weights : problem.experts) {
    const ExactExpert expert = exact_expert(weights);
    experts.push_back(of_magnitudes ? testing::magnitudes_of(expert) : expert);
  }
  if (of_magnitudes) {
    for (TokenBatch& batch : batches) {
      for (float& v : batch.x.all()) v = std::abs(v);
    }
  }
  return reference_exchange(batches, problem.exchange.placement, problem.exchange.options,
                            [&](ExpertId e, std::span<const float> x, std::span<float> y) {
                              const std::vector<double> in(x.begin(), x.end());
                              std::vector<double> out(y.size());
                              exact_forward(experts[index(e)], in, out);
                              std::ranges::copy(out, y.begin());
                            });
}

// Outputs of experts are within kExpertBound of their magnitudes, if |x| < 2 / hidden. Weights are
// positive. The references round rows that cross the wire where the layer does; those of the
// experts' outputs may be rounded to another neighbour, 2^-8 on each of up to two links.
TEST_F(OnGpu, ComputesALayerNearTheExactOne) {
  const auto row_launcher = make_cuda_row_launcher();
  const auto expert_launcher = make_cuda_expert_launcher();
  const auto select_launcher = make_cuda_select_launcher();
  std::uint64_t seed = 500;
  for (const Cluster& cluster : {Cluster{1, 1}, Cluster{1, 3}, Cluster{2, 2}}) {
    for (const DispatchOptions& options : testing::all_options(cluster)) {
      const std::int32_t num_chunks = seed % 2 == 0 ? 1 : 3;
      SCOPED_TRACE(
          fmt::format("{}, {} chunks, seed {}", testing::to_string(options), num_chunks, seed));
      testing::DeviceLayerProblem problem(options, seed++);
      for (TokenBatch& batch : problem.exchange.batches) {
        for (float& v : batch.x.all()) v *= 2.0F / float(problem.exchange.hidden);
      }
      const auto expected = layer_sums(problem, false), magnitudes = layer_sums(problem, true);
      run_in_process(cluster.ep_size(), [&](Transport& transport) {
        const auto compute = make_cuda_stream(0), copies = make_cuda_stream(0);
        StagedNetwork network(transport, *compute, *copies);
        const auto products = make_cublas_products();
        const Matrix<float> sum = testing::run_device_layer(
            transport, problem, num_chunks,
            {*compute, network, *row_launcher, *expert_launcher, *select_launcher, *products});
        const auto rank = index(transport.rank());
        for (std::size_t i = 0; i < sum.all().size(); ++i) {
          ASSERT_NEAR(sum.all()[i], expected[rank].all()[i],
                      (testing::kExpertBound + 2 * 0x1p-8) * magnitudes[rank].all()[i])
              << "rank " << rank << ", value " << i;
        }
      });
    }
  }
}

TEST_F(OnGpu, ComputesGradientsNearThoseOfTheNaiveLayer) {
  const auto row_launcher = make_cuda_row_launcher();
  const auto expert_launcher = make_cuda_expert_launcher();
  const auto select_launcher = make_cuda_select_launcher();
  std::uint64_t seed = 700;
  for (const Cluster& cluster : {Cluster{1, 1}, Cluster{1, 3}, Cluster{2, 2}}) {
    for (const DispatchOptions& options : testing::all_options(cluster)) {
      const std::int32_t num_chunks = seed % 2 == 0 ? 1 : 3;
      SCOPED_TRACE(
          fmt::format("{}, {} chunks, seed {}", testing::to_string(options), num_chunks, seed));
      const testing::DeviceGradientProblem problem(options, seed++);
      std::vector<testing::DeviceGradientResults> results(problem.dy.size());
      run_in_process(cluster.ep_size(), [&](Transport& transport) {
        const auto rank = index(transport.rank());
        const auto compute = make_cuda_stream(0), copies = make_cuda_stream(0);
        StagedNetwork network(transport, *compute, *copies);
        const auto products = make_cublas_products();
        results[rank] = testing::run_device_gradients(
            transport, problem.layer, problem.dy[rank], num_chunks,
            {*compute, network, *row_launcher, *expert_launcher, *select_launcher, *products});
      });
      testing::NearTheNaiveLayer(problem).expect(results);
    }
  }
}

}  // namespace
}  // namespace c2r
