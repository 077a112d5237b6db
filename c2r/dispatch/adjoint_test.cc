// Combine is the adjoint of dispatch, and one value of each choice travels both ways.
#include <gtest/gtest.h>

#include <cmath>
#include <mutex>

#include "c2r/dispatch/testing_internal.h"
#include "c2r/transport/in_process.h"

namespace c2r {
namespace {

using testing::ExchangeProblem;

// <dispatch(x), s g> and <x, combine(g, s)>, summed over the ranks, and the sum of the magnitudes.
struct Products {
  double rows = 0, tokens = 0, magnitude = 0;
};

Matrix<float> dispatched(Handle& handle, MatrixView<const float> x) {
  Matrix<float> rows(handle.num_rows(), x.cols());
  handle.start_dispatch(x);
  handle.dispatch_own(rows);
  handle.finish_dispatch(rows);
  return rows;
}

Matrix<float> combined(Handle& handle, const Matrix<float>& rows, std::span<const float> scale) {
  Matrix<float> sum(handle.num_tokens(), rows.cols());
  handle.start_combine(rows, scale);
  handle.combine_own(rows);
  handle.finish_combine(sum);
  return sum;
}

Products products_of(const ExchangeProblem& problem) {
  Products products;
  std::mutex mutex;
  run_in_process(problem.options.traffic.cluster.ep_size(), [&](Transport& transport) {
    const TokenBatch& batch = problem.batches[index(transport.rank())];
    std::mt19937_64 rng(77 + index(transport.rank()));
    ThreadPool pool(2);
    Dispatcher dispatcher(transport, pool, problem.placement, problem.options);
    Handle handle =
        dispatcher.make_handle(batch.topk_idx, batch.topk_weights, batch.first_token, "layer 1");
    const Matrix<float> rows = dispatched(handle, batch.x);
    Matrix<float> g(rows.rows(), rows.cols());
    std::vector<float> scale(std::size_t(rows.rows()));
    for (float& v : g.all()) v = testing::random_value(rng);
    for (float& v : scale) v = testing::random_value(rng);
    const Matrix<float> back = combined(handle, g, scale);
    const std::lock_guard lock(mutex);
    for (std::int64_t row = 0; row < rows.rows(); ++row) {
      for (std::int64_t c = 0; c < rows.cols(); ++c) {
        const double term =
            double{rows(row, c)} * double{scale[std::size_t(row)]} * double{g(row, c)};
        products.rows += term;
        products.magnitude += std::abs(term);
      }
    }
    for (std::size_t i = 0; i < back.all().size(); ++i) {
      products.tokens += double{batch.x.all()[i]} * double{back.all()[i]};
    }
  });
  return products;
}

class AdjointOn : public ::testing::TestWithParam<Cluster> {};

// Let m be the sum of |row x scale x g|, and u = 2^-24. Dispatch in f32 copies. Combine rounds each
// product, and each of at most 6 sums of a token's row: 7 u m. In bf16 a row is rounded to within
// 2^-9 of its value once there, and once or twice (through a relay) back; the rows in m are the
// rounded ones, which 1.01 makes good.
TEST_P(AdjointOn, CombineIsTheAdjointOfDispatch) {
  for (const DispatchOptions& options : testing::all_options(GetParam())) {
    for (std::uint64_t seed = 0; seed < 5; ++seed) {
      SCOPED_TRACE(fmt::format("{}, seed {}", testing::to_string(options), seed));
      const Products products = products_of(testing::random_problem(options, seed));
      const double bound =
          7 * 0x1p-24 + (options.row_type != ElementType::kF32 ? 1.01 * 3 * 0x1p-9 : 0.0);
      EXPECT_NEAR(products.rows, products.tokens, bound * products.magnitude);
    }
  }
}

// Each value says which choice of which rank it is, and the rows' first element which token.
void check_choices(Transport& transport, const ExchangeProblem& problem) {
  const auto value_of = [](std::size_t rank, std::int64_t t, std::int64_t k) {
    return float(std::int64_t(rank) * 10'000 + t * 100 + k);
  };
  const std::size_t me = index(transport.rank());
  const TokenBatch& batch = problem.batches[me];
  const std::int64_t num_tokens = batch.x.rows(), top_k = batch.topk_idx.cols();
  ThreadPool pool(2);
  Dispatcher dispatcher(transport, pool, problem.placement, problem.options);
  Handle handle =
      dispatcher.make_handle(batch.topk_idx, batch.topk_weights, batch.first_token, "layer 1");
  Matrix<float> marks(num_tokens, 2), values(num_tokens * top_k, 1);
  for (std::int64_t t = 0; t < num_tokens; ++t) {
    marks(t, 0) = float(me), marks(t, 1) = float(t);
    for (std::int64_t k = 0; k < top_k; ++k) values(t * top_k + k, 0) = value_of(me, t, k);
  }
  Handle choices = handle.choices();
  const Matrix<float> rows = dispatched(handle, marks), of_rows = dispatched(choices, values);
  const std::vector<float> weights = handle.row_weights();
  ASSERT_EQ(std::ssize(weights), handle.num_rows());

  const auto check_rows = [&](std::span<const std::int64_t> offsets) {
    for (std::size_t slot = 0; slot + 1 < offsets.size(); ++slot) {
      for (std::int64_t row = offsets[slot]; row < offsets[slot + 1]; ++row) {
        const auto home = std::size_t(rows(row, 0));
        const auto t = std::int64_t(rows(row, 1));
        const auto experts = problem.batches[home].topk_idx.row(t);
        const auto k = std::ranges::find(
                           experts, problem.placement.slots(std::int64_t(me), std::int64_t(slot))) -
                       experts.begin();
        EXPECT_EQ(of_rows(row, 0), value_of(home, t, k));
        EXPECT_EQ(weights[std::size_t(row)], problem.batches[home].topk_weights(t, k));
      }
    }
  };
  check_rows(handle.offsets());
  check_rows(handle.own_offsets());

  Matrix<float> home(num_tokens * top_k, 1);
  choices.start_combine(of_rows);
  choices.combine_own(of_rows);
  choices.finish_combine(home);
  for (std::int64_t t = 0; t < num_tokens; ++t) {
    for (std::int64_t k = 0; k < top_k; ++k) {
      const bool is_masked = batch.topk_idx(t, k) == kNoExpert;
      EXPECT_EQ(home(t * top_k + k, 0), is_masked ? 0 : value_of(me, t, k));
    }
  }
}

TEST_P(AdjointOn, OneValueOfEachChoiceGoesToItsRowAndHome) {
  for (DispatchOptions options : testing::all_options(GetParam())) {
    options.row_type = ElementType::kF32;  // marks above 256 have no bf16
    for (std::uint64_t seed = 0; seed < 5; ++seed) {
      SCOPED_TRACE(fmt::format("{}, seed {}", testing::to_string(options), seed));
      const ExchangeProblem problem = testing::random_problem(options, seed);
      run_in_process(options.traffic.cluster.ep_size(),
                     [&](Transport& transport) { check_choices(transport, problem); });
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Clusters, AdjointOn, ::testing::ValuesIn(testing::kManyClusters),
                         testing::kClusterName);

}  // namespace
}  // namespace c2r
