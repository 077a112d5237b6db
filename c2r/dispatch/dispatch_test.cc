// Tests of dispatch and combine against the reference, in every copy mode, and of the bytes on
// the wire.
#include "c2r/dispatch/dispatch.h"

#include <gtest/gtest.h>

#include <chrono>
#include <limits>
#include <mutex>
#include <thread>

#include "c2r/core/testing.h"
#include "c2r/dispatch/testing_internal.h"
#include "c2r/import/import.h"
#include "c2r/transport/collectives.h"
#include "c2r/transport/in_process.h"

namespace c2r {
namespace {

using testing::error_of;
using testing::ExchangeProblem;
using testing::make_placement;
using testing::random_problem;

void check(const ExchangeProblem& problem) {
  const auto expected = testing::expected_sums(problem);
  run_in_process(problem.options.traffic.cluster.ep_size(),
                 [&](Transport& transport) { testing::run_rank(transport, problem, expected); });
}

TEST(ParseRowType, KnowsTheNamesOfRowsOnTheWire) {
  for (const auto type : {ElementType::kF32, ElementType::kBf16}) {
    EXPECT_EQ(parse_row_type(name_of(type)), type);
  }
  EXPECT_EQ(error_of([] { parse_row_type("fp8"); }), "a row type is f32 or bf16; not 'fp8'");
}

// 2 ranks with 2 experts each, two tokens at rank 0: t0 -> {0, 2, 3}, t1 -> {2}. Worked by hand.
// The weights of the masked choices of t1 have no effect, not even one that is not a number.
TEST(Dispatch, DoesAWorkedExample) {
  const Placement placement = make_placement(4, {{1, 0}, {2, 3}});
  run_in_process(2, [&](Transport& transport) {
    const bool is_home = transport.rank() == RankId{0};
    const std::int64_t num_tokens = is_home ? 2 : 0;
    Matrix<ExpertId> idx(num_tokens, 3, kNoExpert);
    Matrix<float> weights(num_tokens, 3), x(num_tokens, 1), sum(num_tokens, 1, 100.0F);
    if (is_home) {
      idx(0, 0) = ExpertId{0}, idx(0, 1) = ExpertId{3}, idx(0, 2) = ExpertId{2};
      idx(1, 0) = ExpertId{2};
      weights(0, 0) = 1, weights(0, 1) = 2, weights(0, 2) = 3, weights(1, 0) = 4;
      weights(1, 1) = 1000, weights(1, 2) = std::numeric_limits<float>::quiet_NaN();
      x(0, 0) = 1.00390625F, x(1, 0) = 8;  // 1 + 2^-8 has no bf16 and rounds to 1
    }
    ThreadPool pool(2);
    Dispatcher dispatcher(transport, pool, placement,
                          {.traffic = {.cluster = {.ranks_per_node = 2}}});
    Handle handle = dispatcher.make_handle(idx, weights, 0, "layer 0");
    using Offsets = std::vector<std::int64_t>;
    EXPECT_TRUE(
        std::ranges::equal(handle.offsets(), is_home ? Offsets{0, 0, 0} : Offsets{0, 2, 3}));
    EXPECT_TRUE(
        std::ranges::equal(handle.own_offsets(), is_home ? Offsets{0, 0, 1} : Offsets{3, 3, 3}));
    Matrix<float> rows(handle.num_rows(), 1);
    handle.start_dispatch(x);
    handle.dispatch_own(rows);
    EXPECT_TRUE(!is_home || rows(0, 0) == 1.00390625F);
    handle.finish_dispatch(rows);
    const std::vector<float> own{1.00390625F}, received{1, 8, 1};
    EXPECT_TRUE(std::ranges::equal(rows.all(), is_home ? own : received));
    for (float& v : rows.all()) v *= 10;
    handle.start_combine(rows);
    handle.combine_own(rows);
    handle.finish_combine(sum);
    // 10.0390625 from here; 2 x 10 + 3 x 10 from there; 4 x 80.
    const std::vector<float> sums{100 + 10.0390625F + 50, 100 + 320};
    EXPECT_TRUE(!is_home || std::ranges::equal(sum.all(), sums));
    EXPECT_EQ(transport.sent().num_messages[is_home ? 1 : 0], is_home ? 3 : 2);
  });
}

class DispatchOn : public ::testing::TestWithParam<Cluster> {};

TEST_P(DispatchOn, GivesTheReferenceBitForBitAndSendsThePredictedVolume) {
  for (const DispatchOptions& options : testing::all_options(GetParam())) {
    for (std::uint64_t seed = 0; seed < 10; ++seed) {
      SCOPED_TRACE(fmt::format("{}, seed {}", testing::to_string(options), seed));
      check(random_problem(options, seed));
    }
  }
}

TEST_P(DispatchOn, HandlesExtremes) {
  using Choose = std::function<std::vector<ExpertId>(std::mt19937_64&)>;
  const std::int32_t ep_size = GetParam().ep_size();
  const std::int32_t num_experts = 2 * ep_size;
  const auto all = [&](std::mt19937_64&) {
    std::vector<ExpertId> choices;
    for (std::int32_t e = num_experts; e-- > 0;) choices.push_back(ExpertId{e});
    return choices;
  };
  const auto last = [&](std::mt19937_64&) { return std::vector{ExpertId{num_experts - 1}}; };
  const auto none = [](std::mt19937_64&) { return std::vector{kNoExpert, kNoExpert}; };
  struct Case {
    const char* name;
    std::int64_t tokens_of_rank_0, tokens_of_others, top_k;
    Choose choose;
  };
  for (const Case& c :
       {Case{"no token at all", 0, 0, 1, last}, Case{"one token", 1, 0, 1, last},
        Case{"all to one expert", 9, 9, 1, last}, Case{"all to all", 5, 2, num_experts, all},
        Case{"all masked", 4, 4, 2, none}}) {
    for (const DispatchOptions& options : testing::all_options(GetParam())) {
      SCOPED_TRACE(fmt::format("{}, {}", c.name, testing::to_string(options)));
      std::mt19937_64 rng(1);
      ExchangeProblem problem{
          .placement = place_contiguous(num_experts, ep_size), .options = options, .hidden = 5};
      for (std::int32_t r = 0; r < ep_size; ++r) {
        problem.batches.push_back(testing::random_batch(
            r == 0 ? c.tokens_of_rank_0 : c.tokens_of_others, c.top_k, 5, rng, c.choose));
      }
      testing::number_tokens(problem.batches);
      check(problem);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Clusters, DispatchOn, ::testing::ValuesIn(testing::kManyClusters),
                         testing::kClusterName);

// What one process computes: weight x output in the order of choice. f32 rows of single choices are
// added in just that order. Elsewhere sums are associated differently and rows rounded. Let m be
// the sum of |weight x output| of an element, k <= 6 its terms, u = 2^-24. A f32 sum of k products
// is within k u m of the exact one, whatever its order, so two of them are within 2 k u m to first
// order. A bf16 row adds 2^-8 of its value, there and back, a partial sum through a relay twice:
// 2 x 2^-8 m back, and there 2^-8 of |x|, which test_expert() multiplies by at most (e + 1.5) of
// the largest |x| of 1.
TEST(Dispatch, IsCloseToOneProcess) {
  for (const DispatchOptions& options :
       testing::all_options({.num_nodes = 2, .ranks_per_node = 2})) {
    SCOPED_TRACE(testing::to_string(options));
    const ExchangeProblem problem = random_problem(options, 5);
    const auto sums = testing::expected_sums(problem);
    const bool is_exact =
        options.traffic.copy_mode == CopyMode::kPerExpert && options.row_type == ElementType::kF32;
    for (std::size_t r = 0; r < problem.batches.size(); ++r) {
      const TokenBatch& batch = problem.batches[r];
      for (std::int64_t t = 0; t < batch.x.rows(); ++t) {
        std::vector<float> sum(std::size_t(problem.hidden)), y = sum, m = sum, rounded_in = sum;
        for (std::int64_t k = 0; k < batch.topk_idx.cols(); ++k) {
          if (batch.topk_idx(t, k) == kNoExpert) continue;
          testing::test_expert(batch.topk_idx(t, k), batch.x.row(t), y);
          const float weight = batch.topk_weights(t, k);
          for (std::size_t c = 0; c < sum.size(); ++c) {
            sum[c] += weight * y[c];
            m[c] += std::abs(weight * y[c]);
            rounded_in[c] += std::abs(weight) * (float(index(batch.topk_idx(t, k))) + 1.5F);
          }
        }
        for (std::size_t c = 0; c < sum.size(); ++c) {
          const float actual = sums[r](t, std::int64_t(c));
          const float f32 = 2 * 6 * 0x1p-24F * m[c];
          // 1.01 for the products of two roundings.
          const float bf16 = 1.01F * (2 * 0x1p-8F * m[c] + 0x1p-8F * rounded_in[c]);
          EXPECT_TRUE(!is_exact || actual == sum[c]) << actual << " for " << sum[c];
          EXPECT_LE(std::abs(actual - sum[c]),
                    f32 + (options.row_type != ElementType::kF32 ? bf16 : 0.0F));
        }
      }
    }
  }
}

// The choices of gpt-oss-20b: what is counted on the wire is what `c2r simulate` predicts.
TEST(DispatchOnRealData, SendsThePredictedVolumeOfGptOss) {
  const auto ids = testing::real_data("traces/gpt-oss-20b/expert_ids_u8.npy.xz");
  C2R_SKIP_WITHOUT(ids);
  const auto path = testing::temporary_path("trace.safetensors");
  import_file({.format = "npy",
               .inputs = {ids},
               .output = path,
               .model = "gpt-oss-20b",
               .num_experts = 32});
  const Trace trace(path);
  std::mt19937_64 rng(7);
  for (const Cluster& cluster : {Cluster{1, 4}, Cluster{2, 2}, Cluster{2, 4}}) {
    for (const DispatchOptions& options : testing::all_options(cluster)) {
      SCOPED_TRACE(testing::to_string(options));
      ExchangeProblem problem{.placement = testing::random_placement(32, cluster.ep_size(), 4, rng),
                              .options = options,
                              .hidden = 2};
      const auto layer = std::int64_t(uniform_below(24, rng));
      auto token = std::int64_t(uniform_below(200'000, rng));
      for (std::int32_t r = 0; r < cluster.ep_size(); ++r) {
        const std::int64_t num_tokens = 100 + 10 * r;
        TokenBatch& batch = problem.batches.emplace_back(
            testing::random_batch(num_tokens, 4, problem.hidden, rng,
                                  [](auto&) { return std::vector<ExpertId>(4, kNoExpert); }));
        batch.topk_idx = trace.topk_idx(layer, token, token + num_tokens);
        token += num_tokens;
      }
      testing::number_tokens(problem.batches);
      check(problem);
    }
  }
}

// A rank that throws before each of its steps: all others end, and say where.
TEST(Dispatch, FailsEverywhereWhenARankFails) {
  for (const CopyMode mode : {CopyMode::kPerExpert, CopyMode::kPerRank, CopyMode::kPerNode}) {
    const DispatchOptions options{
        .traffic = {.cluster = {.num_nodes = 2, .ranks_per_node = 2}, .copy_mode = mode}};
    std::mt19937_64 rng(3);
    const Placement placement = place_contiguous(8, 4);
    for (int failing_step = 0; failing_step < 5; ++failing_step) {
      SCOPED_TRACE(fmt::format("{}, step {}", name_of(mode), failing_step));
      std::mutex mutex;
      std::vector<std::string> messages;
      const auto body = [&](Transport& transport) {
        const auto step = [&](int number) {
          if (number != failing_step || transport.rank() != RankId{2}) return;
          throw Error(ErrorCode::kInvalidFile, "the shard is lost");
        };
        Matrix<ExpertId> idx(6, 8);
        for (std::int64_t i = 0; i < 48; ++i) idx(i / 8, i % 8) = ExpertId(i % 8);
        const Matrix<float> weights(6, 8, 1.0F), x(6, 3, 1.0F);
        Matrix<float> sum(6, 3);
        ThreadPool pool(1);
        Dispatcher dispatcher(transport, pool, placement, options);
        step(0);
        Handle handle = dispatcher.make_handle(idx, weights, 0, "layer 3");
        Matrix<float> rows(handle.num_rows(), 3);
        step(1);
        handle.start_dispatch(x);
        step(2);
        handle.dispatch_own(rows);
        handle.finish_dispatch(rows);
        step(3);
        handle.start_combine(rows);
        step(4);
        handle.combine_own(rows);
        handle.finish_combine(sum);
        barrier(transport, "layer 3 end");
      };
      const auto remember = [&](Transport& transport) {
        try {
          body(transport);
        } catch (const Error& e) {
          const std::lock_guard lock(mutex);
          messages.emplace_back(e.what());
          throw;
        }
      };
      EXPECT_EQ(error_of([&] { run_in_process(4, remember); }), "rank 2: the shard is lost");
      EXPECT_EQ(messages.size(), 4U);
      for (const std::string& message : messages) {
        if (message == "the shard is lost") continue;
        EXPECT_TRUE(message.starts_with("layer 3 ")) << message;
        EXPECT_NE(message.find("rank 2 failed"), std::string::npos) << message;
      }
    }
  }
}

// Ranks take their time at different places, so that what has arrived differs between them.
TEST(Dispatch, TwoLayersMayBeUnderWayAtOnce) {
  const Cluster cluster{.num_nodes = 2, .ranks_per_node = 2};
  const Placement placement = place_contiguous(8, 4);
  run_in_process(4, [&](Transport& transport) {
    ThreadPool pool(1);
    Dispatcher one(transport, pool, placement,
                   {.traffic = {.cluster = cluster, .copy_mode = CopyMode::kPerNode}});
    Dispatcher two(one, placement);
    std::mt19937_64 rng(index(transport.rank()));
    const auto nap = [&] {
      std::this_thread::sleep_for(std::chrono::microseconds(uniform_below(300, rng)));
    };
    for (int round = 0; round < 100; ++round) {
      const auto choose = [](auto& random) { return testing::random_choices(8, 2, random); };
      const TokenBatch batch = testing::random_batch(8, 2, 4, rng, choose);
      std::vector<Handle> handles;
      for (Dispatcher* dispatcher : {&one, &two}) {
        handles.push_back(dispatcher->make_handle(batch.topk_idx, batch.topk_weights, 0,
                                                  dispatcher == &one ? "layer 1" : "layer 2"));
      }
      std::vector<Matrix<float>> rows, sums;
      for (Handle& handle : handles) nap(), handle.start_dispatch(batch.x);
      for (Handle& handle : handles) {
        nap();
        handle.dispatch_own(rows.emplace_back(handle.num_rows(), 4));
        handle.finish_dispatch(rows.back());
      }
      for (std::size_t h = 0; h < handles.size(); ++h) {
        nap();
        handles[h].start_combine(rows[h]);
        handles[h].combine_own(rows[h]);
      }
      for (Handle& handle : handles) nap(), handle.finish_combine(sums.emplace_back(8, 4));
      ASSERT_EQ(sums[0], sums[1]);
    }
  });
}

TEST(Dispatch, RefusesOptionsThatDoNotFit) {
  const Placement placement = place_contiguous(4, 2);
  ThreadPool pool(1);
  const auto error = [&](const DispatchOptions& options) {
    return error_of([&] {
      run_in_process(
          1, [&](Transport& transport) { Dispatcher(transport, pool, placement, options); });
    });
  };
  EXPECT_EQ(error({.traffic = {.cluster = {1, 2}}}),
            "rank 0: the cluster has 1x2 ranks, but 1 are running");
  EXPECT_EQ(error({.traffic = {.cluster = {1, 1}}}),
            "rank 0: the placement is for 2 ranks, but the cluster has 1x1");
  EXPECT_EQ(error_of([&] {
              run_in_process(2, [&](Transport& transport) {
                Dispatcher(transport, pool, placement,
                           {.traffic = {.cluster = {1, 2}, .copy_mode = CopyMode::kAllGather}});
              });
            }).substr(8),
            "tokens are sent per-expert, per-rank or per-node; not all-gather");
  const std::string message = error_of([&] {
    run_in_process(2, [&](Transport& transport) {
      const auto type = transport.rank() == RankId{0} ? ElementType::kF32 : ElementType::kBf16;
      ThreadPool own_pool(1);
      Dispatcher dispatcher(transport, own_pool, placement,
                            {.traffic = {.cluster = {1, 2}}, .row_type = type});
      dispatcher.make_handle({}, {}, 0, "layer 3");
    });
  });
  EXPECT_NE(message.find("layer 3: rank"), std::string::npos) << message;
  EXPECT_NE(message.find("has another placement"), std::string::npos) << message;
}

TEST(Dispatch, RefusesChoicesThatAreNotValidAndCallsOutOfOrder) {
  run_in_process(1, [](Transport& transport) {
    ThreadPool pool(1);
    Dispatcher dispatcher(transport, pool, place_contiguous(4, 1), {});
    Matrix<ExpertId> idx(2, 2, kNoExpert);
    const Matrix<float> weights(2, 2), other(2, 3);
    idx(0, 0) = ExpertId{2}, idx(0, 1) = ExpertId{1};  // valid
    const auto error = [&](MatrixView<const float> given) {
      return error_of([&] { dispatcher.make_handle(idx, given, 0, "layer 3"); });
    };
    EXPECT_EQ(error(other), "layer 3: topk_idx is 2x2, but topk_weights is 2x3");
    idx(1, 1) = ExpertId{4};
    EXPECT_EQ(error(weights), "layer 3: token 1 chose expert 4, but there are 4");
    idx(1, 1) = ExpertId{-2};
    EXPECT_EQ(error(weights), "layer 3: token 1 chose expert -2, but there are 4");
    idx(1, 0) = idx(1, 1) = ExpertId{2};
    EXPECT_EQ(error(weights), "layer 3: token 1 chose expert 2 twice");
    EXPECT_EQ(error_of([&] { dispatcher.make_handles(idx, weights, 0, 2, "layer 3"); }),
              "layer 3: token 1 chose expert 2 twice");
    idx(0, 0) = idx(0, 1) = idx(1, 0) = kNoExpert;
    EXPECT_EQ(error_of([&] { dispatcher.make_handles(idx, weights, 0, 0, "layer 3"); }),
              "layer 3: num_chunks is 0, but must be positive");

    Handle handle = dispatcher.make_handle(idx, weights, 0, "layer 3");
    const Matrix<float> x(2, 3), few(1, 3);
    Matrix<float> rows(1, 3), narrow(1, 2), few_rows(0, 3), sum(2, 3);
    EXPECT_EQ(error_of([&] { handle.start_dispatch(few); }),
              "layer 3: x has 1 rows, but 2 are needed");
    EXPECT_EQ(error_of([&] { handle.finish_dispatch(rows); }),
              "layer 3: a dispatch of rows of 3 values is finished, but was not started");
    handle.start_dispatch(x);
    EXPECT_EQ(error_of([&] { handle.start_combine(rows); }),
              "layer 3: a dispatch or combine was started, but the one before is not finished");
    EXPECT_EQ(error_of([&] { handle.finish_dispatch(rows); }),
              "layer 3: what stays on this rank was forgotten");
    EXPECT_EQ(error_of([&] { handle.combine_own(rows); }),
              "layer 3: a combine of rows of 3 values is finished, but was not started");
    EXPECT_EQ(error_of([&] { handle.dispatch_own(few_rows); }),
              "layer 3: rows has 0 rows, but 1 are needed");
    handle.dispatch_own(rows);
    EXPECT_EQ(error_of([&] { handle.finish_dispatch(narrow); }),
              "layer 3: a dispatch of rows of 2 values is finished, but was not started");
    handle.finish_dispatch(rows);
    EXPECT_TRUE(handle.poll());
    EXPECT_EQ(error_of([&] { handle.finish_combine(sum); }),
              "layer 3: a combine of rows of 3 values is finished, but was not started");
  });
}

}  // namespace
}  // namespace c2r
