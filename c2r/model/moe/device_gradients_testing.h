// How near the gradients of a layer on a device, fake or real, are to those of the naive layer.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "c2r/experts/cuda/device_experts_testing.h"
#include "c2r/model/moe/device_layer_testing.h"
#include "c2r/model/moe/exact_layer_testing.h"

namespace c2r::testing {

/// A layer whose numbers have the sizes that kExpertBound needs, and the gradients of its sums.
struct DeviceGradientProblem {
  DeviceGradientProblem(const DispatchOptions& options, std::uint64_t seed)
      : DeviceGradientProblem(DeviceLayerProblem(options, seed)) {}
  explicit DeviceGradientProblem(DeviceLayerProblem of_layer) : layer(std::move(of_layer)) {
    for (TokenBatch& batch : layer.exchange.batches) {
      for (float& v : batch.x.all()) v *= 2.0F / float(batch.x.cols());
      dy.push_back(random_matrix(batch.x.rows(), batch.x.cols(), layer.rng));
      kept_idx.push_back(batch.topk_idx);
      drop_choices(kept_idx.back());
    }
  }

  /// The same layer in double; with `magnitudes`, every number is replaced by its magnitude.
  ExactLayer exact(bool magnitudes) const {
    const auto in_double = [&](const Matrix<float>& from) {
      Matrix<double> to(from.rows(), from.cols());
      std::ranges::transform(from.all(), to.all().begin(),
                             [&](double v) { return magnitudes ? std::abs(v) : v; });
      return to;
    };
    ExactLayer of_double;
    for (const ExpertWeights& weights : layer.experts) {
      const ExactExpert expert = exact_expert(weights);
      of_double.experts.push_back(magnitudes ? magnitudes_of(expert) : expert);
    }
    for (std::size_t rank = 0; rank < dy.size(); ++rank) {
      const TokenBatch& batch = layer.exchange.batches[rank];
      of_double.ranks.push_back(
          {in_double(batch.x), in_double(dy[rank]), in_double(batch.topk_weights), kept_idx[rank]});
    }
    return of_double;
  }

  DeviceLayerProblem layer;
  std::vector<Matrix<float>> dy;           // [ep_size]
  std::vector<Matrix<ExpertId>> kept_idx;  // [ep_size], choices that are not dropped
};

/// The gradients of one token's logits by the definition of its weights: w = scale softmax.
inline std::vector<double> exact_dlogits(const RoutingPolicy& policy, std::span<const float> logits,
                                         std::span<const ExpertId> chosen,
                                         std::span<const double> dweights) {
  const bool is_over_all = policy.scoring == Scoring::kSoftmax && !policy.norm_topk_prob;
  std::vector<double> p(logits.size()), d(logits.size());
  double sum = 0, mean = 0;
  for (std::size_t e = 0; e < p.size(); ++e) {
    const bool counts = is_over_all || std::ranges::count(chosen, ExpertId{std::int32_t(e)}) > 0;
    p[e] = counts ? std::exp(double{logits[e]}) : 0.0;
    sum += p[e];
  }
  for (double& v : p) v /= sum;
  for (std::size_t k = 0; k < chosen.size(); ++k) d[index(chosen[k])] = dweights[k];
  for (std::size_t e = 0; e < p.size(); ++e) mean += p[e] * d[e];
  for (std::size_t e = 0; e < p.size(); ++e) d[e] = policy.scale * p[e] * (d[e] - mean);
  return d;
}

/// Results of experts and their gradients are within kExpertBound of their magnitudes. A gradient
/// of a sum is rounded once more on its way, 2^-8, and so is what returns, on each of up to two
/// links; the rest is f32. A gradient of logits differs by no more than those of weights do, and
/// has two terms of at most scale = 1.5 times their largest.
class NearTheNaiveLayer {
 public:
  explicit NearTheNaiveLayer(const DeviceGradientProblem& problem)
      : problem_(problem),
        expected_(naive_gradients(problem.exact(false))),
        magnitudes_(naive_gradients(problem.exact(true))) {}

  /// @param results [ep_size]
  void expect(const std::vector<DeviceGradientResults>& results) const {
    ExactGradients sums = no_gradients(problem_.exact(false));
    for (std::size_t rank = 0; rank < results.size(); ++rank) {
      SCOPED_TRACE(fmt::format("rank {}", rank));
      const DeviceGradientResults& got = results[rank];
      expect_near("y", got.y.all(), expected_.y[rank].all(), magnitudes_.y[rank].all());
      expect_near("dx", got.dx.all(), expected_.dx[rank].all(), magnitudes_.dx[rank].all());
      expect_near("dweights", got.dweights.all(), expected_.dweights[rank].all(),
                  magnitudes_.dweights[rank].all());
      expect_logits(rank, got.dlogits);
      const auto slots = problem_.layer.exchange.placement.slots.row(std::int64_t(rank));
      for (std::size_t slot = 0; slot < slots.size(); ++slot) {
        if (slots[slot] == kNoExpert) continue;
        add(got.dexperts[slot], sums.dexperts[index(slots[slot])]);
      }
    }
    for (std::size_t e = 0; e < sums.dexperts.size(); ++e) {
      for (const auto part : {&ExactExpert::gate, &ExactExpert::up, &ExactExpert::down}) {
        expect_near("dexperts", (sums.dexperts[e].*part).all(), (expected_.dexperts[e].*part).all(),
                    (magnitudes_.dexperts[e].*part).all());
      }
    }
  }

 private:
  static constexpr double kBound = kExpertBound + 4 * 0x1p-8;

  template <class Got>
  static void expect_near(const char* what, const Got& got, std::span<const double> expected,
                          std::span<const double> magnitudes) {
    ASSERT_EQ(got.size(), expected.size()) << what;
    for (std::size_t i = 0; i < got.size(); ++i) {
      ASSERT_NEAR(double{got[i]}, expected[i], kBound * magnitudes[i]) << what << ", value " << i;
    }
  }
  void expect_logits(std::size_t rank, const Matrix<float>& got) const {
    const Matrix<ExpertId>& chosen = problem_.layer.exchange.batches[rank].topk_idx;
    for (std::int64_t t = 0; t < got.rows(); ++t) {
      const std::vector<double> expected =
          exact_dlogits(problem_.layer.policy, problem_.layer.logits[rank].row(t), chosen.row(t),
                        expected_.dweights[rank].row(t));
      const double largest = std::ranges::max(magnitudes_.dweights[rank].row(t));
      const std::vector<double> magnitudes(expected.size(), 2 * 1.5 * largest);
      expect_near("dlogits", got.row(t), expected, magnitudes);
    }
  }
  static void add(const ExactExpert& from, ExactExpert& to) {
    for (const auto part : {&ExactExpert::gate, &ExactExpert::up, &ExactExpert::down}) {
      const auto values = (from.*part).all();
      std::ranges::transform(values, (to.*part).all(), (to.*part).all().begin(), std::plus());
    }
  }

  const DeviceGradientProblem& problem_;
  const ExactGradients expected_, magnitudes_;
};

}  // namespace c2r::testing
