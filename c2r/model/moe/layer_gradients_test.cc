// ExactGradients of a whole MoE layer on ranks: those of the naive layer in one process, in double.
//
// Forward: rows = dispatch(x), out = experts(rows), y = combine(out) with the routing's weights w.
// Backward, with the same handle, for dL/dy = dy:
//   g = dispatch(dy)
//   dw of a choice = <out, g> of its row, which goes home as the choice's value
//   drows, dexperts = the experts' backward of w g
//   dx = combine(drows), with scales of 1
#include <gtest/gtest.h>

#include <cmath>
#include <deque>
#include <mutex>

#include "c2r/core/testing.h"
#include "c2r/dispatch/testing_internal.h"
#include "c2r/experts/expert_compute.h"
#include "c2r/experts/testing_internal.h"
#include "c2r/model/moe/exact_layer_testing.h"
#include "c2r/transport/in_process.h"

namespace c2r {
namespace {

using testing::ExactGradients;
using testing::ExactLayer;
using testing::ExchangeProblem;

// The random experts of a problem, as they are stored, and its gradients dy.
struct GradientProblem {
  GradientProblem(const DispatchOptions& options, std::uint64_t seed)
      : GradientProblem(testing::random_problem(options, seed), seed) {}
  GradientProblem(ExchangeProblem of_tokens, std::uint64_t seed) : exchange(std::move(of_tokens)) {
    std::mt19937 rng(std::uint32_t(seed + 1));
    const std::int64_t hidden = exchange.hidden;
    for (std::int32_t e = 0; e < exchange.placement.num_experts; ++e) {
      const auto add = [&](std::int64_t outputs, std::int64_t inputs) {
        return stored.emplace_back(outputs, inputs, ElementType::kF32, rng).view;
      };
      experts.push_back({.gate = add(kIntermediate, hidden),
                         .up = add(kIntermediate, hidden),
                         .down = add(hidden, kIntermediate)});
    }
    for (const TokenBatch& batch : exchange.batches) {
      dy.push_back(testing::random_matrix(batch.x.rows(), hidden, rng));
    }
  }

  // The same layer in double; with `magnitudes`, every number is replaced by its magnitude.
  ExactLayer layer(bool magnitudes) const {
    const auto exact = [&](const auto& from) {
      Matrix<double> to(from.rows(), from.cols());
      std::ranges::transform(from.all(), to.all().begin(),
                             [&](double v) { return magnitudes ? std::abs(v) : v; });
      return to;
    };
    ExactLayer layer;
    for (const ExpertWeights& weights : experts) {
      const ExactExpert expert = exact_expert(weights);
      layer.experts.push_back({exact(expert.gate), exact(expert.up), exact(expert.down)});
    }
    for (std::size_t rank = 0; rank < dy.size(); ++rank) {
      const TokenBatch& batch = exchange.batches[rank];
      layer.ranks.push_back(
          {exact(batch.x), exact(dy[rank]), exact(batch.topk_weights), batch.topk_idx});
    }
    return layer;
  }

  static constexpr std::int64_t kIntermediate = 4;

  ExchangeProblem exchange;
  std::deque<testing::RandomWeights> stored;
  std::vector<ExpertWeights> experts;
  std::vector<Matrix<float>> dy;  // [ep_size]
};

// One rank's part of the layer.
class RankLayer {
 public:
  RankLayer(Transport& transport, const GradientProblem& problem)
      : problem_(problem),
        rank_(index(transport.rank())),
        batch_(problem.exchange.batches[rank_]),
        slots_(problem.exchange.placement.slots.row(std::int64_t(rank_))),
        dispatcher_(transport, pool_, problem.exchange.placement, problem.exchange.options),
        handle_(dispatcher_.make_handle(batch_.topk_idx, batch_.topk_weights, batch_.first_token,
                                        "layer 1")) {
    for (const ExpertId expert : slots_) weights_.push_back(&problem.experts[index(expert)]);
    for (const ExpertWeights* weights : weights_) {
      dexperts_.push_back(zero_gradients(exact_expert(*weights)));
    }
  }

  void run(ExactGradients& gradients, std::mutex& mutex) {
    CpuExperts experts(mlps_, weights_);
    const Matrix<float> rows = dispatched(batch_.x);
    Matrix<float> out(rows.rows(), rows.cols()), drows = out;
    experts.forward(handle_.offsets(), rows, out);
    experts.forward(handle_.own_offsets(), rows, out);
    const Matrix<float> y = combined(handle_, out, std::nullopt);

    Matrix<float> g = dispatched(problem_.dy[rank_]);
    const Matrix<float> dweights = weight_gradients(out, g);
    const std::vector<float> weights = handle_.row_weights();
    for (std::int64_t row = 0; row < g.rows(); ++row) {
      for (float& v : g.row(row)) v *= weights[std::size_t(row)];
    }
    experts.backward(handle_.offsets(), rows, g, drows, dexperts_);
    experts.backward(handle_.own_offsets(), rows, g, drows, dexperts_);
    const std::vector<float> ones(weights.size(), 1.0F);
    const Matrix<float> dx = combined(handle_, drows, ones);

    add_results(y, dx, dweights, gradients, mutex);
  }
  // The same by a pipeline.
  void run_in_chunks(std::int32_t num_chunks, ExactGradients& gradients, std::mutex& mutex) {
    CpuExperts experts(mlps_, weights_);
    Pipeline pipeline(pool_, num_chunks);
    KeptBatch kept;
    Matrix<float> y(batch_.x.rows(), batch_.x.cols()), dx = y;
    Matrix<float> dweights(batch_.topk_idx.rows(), batch_.topk_idx.cols());
    const PipelineWork forward{.experts = [&](const auto& offsets, const auto& rows, auto out) {
      experts.forward(offsets, rows, out);
    }};
    const PipelineBackwardWork backward{
        .experts = [&](const auto& offsets, const auto& rows, const auto& dout, auto drows) {
          experts.backward(offsets, rows, dout, drows, dexperts_);
        }};
    pipeline.run(dispatcher_, batch_.x, batch_.topk_idx, batch_.topk_weights, batch_.first_token,
                 "layer 1", forward, y, &kept);
    pipeline.run_backward(kept,
                          {.dsum = problem_.dy[rank_],
                           .topk_weights = batch_.topk_weights,
                           .dx = dx,
                           .dweights = dweights},
                          backward);
    add_results(y, dx, dweights, gradients, mutex);
  }

 private:
  void add_results(const Matrix<float>& y, const Matrix<float>& dx, const Matrix<float>& dweights,
                   ExactGradients& gradients, std::mutex& mutex) const {
    const std::lock_guard lock(mutex);
    std::ranges::copy(y.all(), gradients.y[rank_].all().begin());
    std::ranges::copy(dx.all(), gradients.dx[rank_].all().begin());
    std::ranges::copy(dweights.all(), gradients.dweights[rank_].all().begin());
    add_expert_gradients(gradients);
  }
  Matrix<float> dispatched(MatrixView<const float> x) {
    Matrix<float> rows(handle_.num_rows(), x.cols());
    handle_.start_dispatch(x);
    handle_.dispatch_own(rows);
    handle_.finish_dispatch(rows);
    return rows;
  }
  static Matrix<float> combined(Handle& handle, const Matrix<float>& rows, const RowScale& scale) {
    Matrix<float> sum(handle.num_tokens(), rows.cols());
    scale ? handle.start_combine(rows, *scale) : handle.start_combine(rows);
    handle.combine_own(rows);
    handle.finish_combine(sum);
    return sum;
  }
  // [num_tokens * top_k, 1]
  Matrix<float> weight_gradients(const Matrix<float>& out, const Matrix<float>& g) {
    Matrix<float> values(out.rows(), 1);
    for (std::int64_t row = 0; row < out.rows(); ++row) {
      double product = 0;
      for (std::int64_t c = 0; c < out.cols(); ++c) product += double{out(row, c)} * g(row, c);
      values(row, 0) = float(product);
    }
    Handle choices = handle_.choices();
    return combined(choices, values, std::nullopt);
  }
  // An expert's replicas each have the gradients of their rows.
  void add_expert_gradients(ExactGradients& gradients) const {
    for (std::size_t slot = 0; slot < slots_.size(); ++slot) {
      for (const auto part : {&ExactExpert::gate, &ExactExpert::up, &ExactExpert::down}) {
        const auto from = (dexperts_[slot].*part).all();
        const auto to = (gradients.dexperts[index(slots_[slot])].*part).all();
        for (std::size_t i = 0; i < from.size(); ++i) to[i] += from[i];
      }
    }
  }

  const GradientProblem& problem_;
  const std::size_t rank_;
  const TokenBatch& batch_;
  const std::span<const ExpertId> slots_;
  ThreadPool pool_{2};
  GroupedGemm gemm_{Arithmetic::kF32, pool_};
  ExpertMlps mlps_{gemm_};
  std::vector<const ExpertWeights*> weights_;  // of each slot
  std::vector<ExactExpert> dexperts_;          // of each slot
  Dispatcher dispatcher_;
  Handle handle_;
};

// Let u = 2^-24, and let M be the same quantity computed from the magnitudes of all numbers. |silu|
// and its slope are at most 2.2 times what they are at the magnitude, and each quantity has one
// such factor. x, dy and weights travel in f32 as they are. Forward, a product of n terms is within
// n u of its magnitudes, so an output is within (2.2 hidden + intermediate + 8) u of its own.
// Backward is in double, and its inputs and results are rounded once. A sum of at most 6 weighted
// rows adds 7 u, and the product of an output and its gradient, of at most 9 terms, 15 u.
double gradient_tolerance(const GradientProblem& problem, double magnitude) {
  const double num_roundings =
      2.2 * (2.2 * double(problem.exchange.hidden) + GradientProblem::kIntermediate + 16);
  return num_roundings * 0x1p-24 * magnitude;
}

void expect_near_gradients(const GradientProblem& problem, const char* what,
                           const Matrix<double>& got, const Matrix<double>& expected,
                           const Matrix<double>& magnitudes) {
  ASSERT_EQ(got.rows(), expected.rows());
  for (std::size_t i = 0; i < got.all().size(); ++i) {
    ASSERT_NEAR(got.all()[i], expected.all()[i], gradient_tolerance(problem, magnitudes.all()[i]))
        << what << ", value " << i;
  }
}

// @param num_chunks of a pipeline, or 0: by the calls of a handle
void check_gradients(const GradientProblem& problem, std::int32_t num_chunks) {
  const ExactLayer layer = problem.layer(false);
  const ExactGradients expected = naive_gradients(layer);
  const ExactGradients magnitudes = naive_gradients(problem.layer(true));
  ExactGradients got = no_gradients(layer);
  std::mutex mutex;
  run_in_process(problem.exchange.options.traffic.cluster.ep_size(), [&](Transport& transport) {
    RankLayer rank(transport, problem);
    if (num_chunks == 0) return rank.run(got, mutex);
    rank.run_in_chunks(num_chunks, got, mutex);
  });
  for (std::size_t rank = 0; rank < layer.ranks.size(); ++rank) {
    expect_near_gradients(problem, "y", got.y[rank], expected.y[rank], magnitudes.y[rank]);
    expect_near_gradients(problem, "dx", got.dx[rank], expected.dx[rank], magnitudes.dx[rank]);
    expect_near_gradients(problem, "dweights", got.dweights[rank], expected.dweights[rank],
                          magnitudes.dweights[rank]);
  }
  for (std::size_t e = 0; e < layer.experts.size(); ++e) {
    for (const auto part : {&ExactExpert::gate, &ExactExpert::up, &ExactExpert::down}) {
      expect_near_gradients(problem, "dexperts", got.dexperts[e].*part, expected.dexperts[e].*part,
                            magnitudes.dexperts[e].*part);
    }
  }
}

class LayerGradientsOn : public ::testing::TestWithParam<Cluster> {};

TEST_P(LayerGradientsOn, AreThoseOfTheNaiveLayer) {
  for (const DispatchOptions& options : testing::all_options(GetParam())) {
    if (options.row_type != ElementType::kF32) continue;
    for (std::uint64_t seed = 0; seed < 4; ++seed) {
      SCOPED_TRACE(fmt::format("{}, seed {}", testing::to_string(options), seed));
      check_gradients(GradientProblem(options, seed), 0);
      check_gradients(GradientProblem(options, seed), std::int32_t(1 + seed));
    }
  }
}

TEST_P(LayerGradientsOn, AreThoseOfTheNaiveLayerWhereEveryTokenChoosesOneExpert) {
  for (const DispatchOptions& options : testing::all_options(GetParam())) {
    if (options.row_type != ElementType::kF32) continue;
    SCOPED_TRACE(testing::to_string(options));
    check_gradients(GradientProblem(testing::hot_expert_problem(options, 5), 5), 3);
  }
}

INSTANTIATE_TEST_SUITE_P(Clusters, LayerGradientsOn, ::testing::ValuesIn(testing::kManyClusters),
                         testing::kClusterName);

// The naive layer's own gradients: L = sum of <y, dy>. A central difference is off by h^2 / 6 times
// the third derivative, below 100 here, and by rounding, some 1e-15 / h.
TEST(NaiveLayer, HasTheGradientsOfFiniteDifferences) {
  constexpr double kStep = 1e-4;
  const GradientProblem problem(
      {.traffic = {.cluster = {.ranks_per_node = 2}}, .row_type = ElementType::kF32}, 7);
  ExactLayer layer = problem.layer(false);
  const ExactGradients gradients = naive_gradients(layer);
  const auto loss = [&] {
    const ExactGradients at = naive_gradients(layer);
    double sum = 0;
    for (std::size_t rank = 0; rank < layer.ranks.size(); ++rank) {
      for (std::size_t i = 0; i < at.y[rank].all().size(); ++i) {
        sum += at.y[rank].all()[i] * layer.ranks[rank].dy.all()[i];
      }
    }
    return sum;
  };
  int num_checked = 0;
  const auto check_all = [&](Matrix<double>& values, const Matrix<double>& expected) {
    for (std::size_t i = 0; i < values.all().size(); ++i, ++num_checked) {
      const double before = values.all()[i];
      values.all()[i] = before + kStep;
      const double above = loss();
      values.all()[i] = before - kStep;
      const double below = loss();
      values.all()[i] = before;
      ASSERT_NEAR(expected.all()[i], (above - below) / (2 * kStep), 2e-7);
    }
  };
  for (std::size_t rank = 0; rank < layer.ranks.size(); ++rank) {
    check_all(layer.ranks[rank].x, gradients.dx[rank]);
    check_all(layer.ranks[rank].weights, gradients.dweights[rank]);
  }
  for (std::size_t e = 0; e < layer.experts.size(); ++e) {
    for (const auto part : {&ExactExpert::gate, &ExactExpert::up, &ExactExpert::down}) {
      check_all(layer.experts[e].*part, gradients.dexperts[e].*part);
    }
  }
  EXPECT_GT(num_checked, 100);
}

}  // namespace
}  // namespace c2r
