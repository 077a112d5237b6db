// One test body for every transport: problems, what a rank does with them, and what must come out.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "c2r/core/rng.h"
#include "c2r/dispatch/dispatch.h"
#include "c2r/dispatch/pipeline.h"
#include "c2r/dispatch/reference.h"
#include "c2r/placement/cost/reach.h"
#include "c2r/placement/testing_internal.h"

namespace c2r::testing {

/// What all ranks of a test know.
struct ExchangeProblem {
  Placement placement;
  DispatchOptions options;
  std::int64_t hidden = 0;
  std::vector<TokenBatch> batches;  // [ep_size]
};

inline float random_value(std::mt19937_64& rng) {
  return static_cast<float>(static_cast<double>(rng() >> 11) * 0x1p-52 - 1);
}

/// Values without order; `choose(rng)` gives the experts of a token.
template <class Choose>
TokenBatch random_batch(std::int64_t num_tokens, std::int64_t top_k, std::int64_t hidden,
                        std::mt19937_64& rng, const Choose& choose) {
  TokenBatch batch{.x = {num_tokens, hidden},
                   .topk_idx = {num_tokens, top_k},
                   .topk_weights = {num_tokens, top_k}};
  for (float& v : batch.x.all()) v = random_value(rng);
  for (float& v : batch.topk_weights.all()) v = random_value(rng);
  for (std::int64_t t = 0; t < num_tokens; ++t) {
    std::ranges::copy(choose(rng), batch.topk_idx.row(t).begin());
  }
  return batch;
}

/// Numbers the tokens of all ranks in the order of the ranks, as a trace does.
inline void number_tokens(std::vector<TokenBatch>& batches) {
  std::int64_t next = 0;
  for (TokenBatch& batch : batches) batch.first_token = next, next += batch.x.rows();
}

/// Up to 20 tokens a rank, some ranks without any, replicas, masked choices.
inline ExchangeProblem random_problem(const DispatchOptions& options, std::uint64_t seed) {
  std::mt19937_64 rng(seed);
  const std::int32_t ep_size = options.traffic.cluster.ep_size();
  const auto num_experts = std::int32_t(ep_size + std::int32_t(uniform_below(12, rng)));
  const auto top_k = std::int32_t(1 + uniform_below(std::uint64_t(std::min(6, num_experts)), rng));
  ExchangeProblem problem{.placement = random_placement(num_experts, ep_size, 3, rng),
                          .options = options,
                          .hidden = 1 + std::int64_t(uniform_below(9, rng))};
  problem.options.traffic.seed = seed;
  for (std::int32_t r = 0; r < ep_size; ++r) {
    const auto num_tokens = std::int64_t(uniform_below(3, rng) == 0 ? 0 : uniform_below(21, rng));
    problem.batches.push_back(
        random_batch(num_tokens, top_k, problem.hidden, rng,
                     [&](auto& random) { return random_choices(num_experts, top_k, random); }));
  }
  number_tokens(problem.batches);
  return problem;
}

/// Every token of every rank chooses the last expert and nothing else, so that the last rank
/// receives everything from all.
inline ExchangeProblem hot_expert_problem(const DispatchOptions& options, std::uint64_t seed) {
  std::mt19937_64 rng(seed);
  const std::int32_t ep_size = options.traffic.cluster.ep_size();
  ExchangeProblem problem{
      .placement = place_contiguous(2 * ep_size, ep_size), .options = options, .hidden = 5};
  for (std::int32_t r = 0; r < ep_size; ++r) {
    problem.batches.push_back(random_batch(20 + r, 2, problem.hidden, rng, [&](auto&) {
      return std::vector{ExpertId{2 * ep_size - 1}, kNoExpert};
    }));
  }
  number_tokens(problem.batches);
  return problem;
}

/// Tells experts apart, and mixes a row's values, so that no mix-up passes.
inline void test_expert(ExpertId expert, std::span<const float> x, std::span<float> y) {
  const auto e = static_cast<float>(index(expert));
  for (std::size_t c = 0; c < x.size(); ++c) {
    y[c] = (e + 1) * x[c] - 0.5F * x[(c + 1) % x.size()] + e / 8;
  }
}

/// Applies each local expert to its rows.
inline void compute_experts(const ExchangeProblem& problem, RankId rank,
                            std::span<const std::int64_t> offsets, const GatheredRows& in,
                            MatrixView<float> out) {
  std::vector<float> x(std::size_t(in.cols()));
  for (std::size_t slot = 0; slot + 1 < offsets.size(); ++slot) {
    const ExpertId expert = problem.placement.slots(std::int64_t(index(rank)), std::int64_t(slot));
    for (std::int64_t row = offsets[slot]; row < offsets[slot + 1]; ++row) {
      in.read_row(row, x);
      test_expert(expert, x, out.row(row));
    }
  }
}

/// The copies that the volume model predicts. Of all batches, each once.
inline Volume predicted_volume(const ExchangeProblem& problem, CopyMode mode) {
  TrafficModel traffic = with_copy_mode(problem.options.traffic, mode);
  traffic.homes = Homes::kSequences;
  ReachCounter counter(problem.placement, traffic);
  for (std::size_t r = 0; r < problem.batches.size(); ++r) {
    const Matrix<ExpertId>& topk_idx = problem.batches[r].topk_idx;
    counter.add(topk_idx,
                std::vector<RankId>(std::size_t(topk_idx.rows()), RankId{std::int32_t(r)}));
  }
  return volume_of(counter.finish(), traffic);
}

/// One rank's traffic since the last call, checked to be `copies(peer)` rows to each peer, in one
/// message if any.
class TrafficMeter {
 public:
  explicit TrafficMeter(const Transport& transport)
      : transport_(&transport), before_(transport.sent()) {}

  void restart() { before_ = transport_->sent(); }
  template <class Copies>
  void expect_rows(const char* phase, std::int64_t row_bytes, const Copies& copies) {
    const Traffic& now = transport_->sent();
    for (std::int64_t peer = 0; peer < transport_->ep_size(); ++peer) {
      const auto r = static_cast<std::size_t>(peer);
      const bool is_self = transport_->rank() == RankId{std::int32_t(peer)};
      const std::int64_t expected = is_self ? 0 : copies(peer);
      EXPECT_EQ(now.num_bytes[r] - before_.num_bytes[r], expected * row_bytes)
          << phase << " from rank " << index(transport_->rank()) << " to rank " << peer;
      EXPECT_EQ(now.num_messages[r] - before_.num_messages[r], expected > 0 ? 1 : 0) << phase;
    }
    restart();
  }

 private:
  const Transport* transport_;
  Traffic before_;
};

/// Dispatches, computes and combines this rank's batch `num_rounds` times with one handle, and
/// compares results with `expected` [ep_size] bit for bit and traffic with the volume model.
inline void run_rank(Transport& transport, const ExchangeProblem& problem,
                     std::span<const Matrix<float>> expected, int num_rounds = 2) {
  const DispatchOptions& how = problem.options;
  const Volume volume = predicted_volume(problem, how.traffic.copy_mode);
  const Volume back = predicted_volume(
      problem, how.sums_before_return ? how.traffic.copy_mode : CopyMode::kPerExpert);
  const auto me = std::int64_t(index(transport.rank()));
  const TokenBatch& batch = problem.batches[std::size_t(me)];
  ThreadPool pool(2);
  Dispatcher dispatcher(transport, pool, problem.placement, problem.options);
  Handle handle =
      dispatcher.make_handle(batch.topk_idx, batch.topk_weights, batch.first_token, "layer 3");
  EXPECT_EQ(handle.num_tokens(), batch.x.rows());
  EXPECT_EQ(handle.num_rows(), volume.choices[std::size_t(me)]);

  const std::int64_t row_bytes = problem.hidden * element_bytes(problem.options.row_type);
  TrafficMeter meter(transport);
  for (int round = 0; round < num_rounds; ++round) {
    Matrix<float> rows(handle.num_rows(), problem.hidden), outputs = rows;
    handle.start_dispatch(batch.x);
    (void)handle.poll();
    handle.dispatch_own(rows);
    handle.finish_dispatch(rows);
    meter.expect_rows("dispatch", row_bytes,
                      [&](std::int64_t dst) { return volume.link_copies(me, dst); });
    compute_experts(problem, transport.rank(), handle.offsets(), rows, outputs);
    handle.start_combine(outputs);
    compute_experts(problem, transport.rank(), handle.own_offsets(), rows, outputs);
    handle.combine_own(outputs);
    Matrix<float> sum(batch.x.rows(), problem.hidden);
    handle.finish_combine(sum);
    meter.expect_rows("combine", row_bytes,
                      [&](std::int64_t src) { return back.link_copies(src, me); });
    EXPECT_EQ(sum, expected[std::size_t(me)]) << "rank " << me << ", round " << round;
  }
  for (std::int64_t peer = 0; peer < transport.ep_size(); ++peer) {
    const std::int64_t copies = volume.link_copies(me, peer) + back.link_copies(peer, me);
    EXPECT_EQ(dispatcher.sent_row_bytes()[std::size_t(peer)],
              peer == me ? 0 : num_rounds * copies * row_bytes);
  }
}

/// Runs this rank's batch in chunks through two layers, so that the memory of the first is used
/// again, and compares results with `expected` [ep_size] bit for bit.
inline void run_pipeline(Transport& transport, const ExchangeProblem& problem,
                         std::int32_t num_chunks, std::span<const Matrix<float>> expected) {
  const TokenBatch& batch = problem.batches[index(transport.rank())];
  ThreadPool pool(2);
  Dispatcher first(transport, pool, problem.placement, problem.options);
  Dispatcher second(first, problem.placement);
  Pipeline pipeline(pool, num_chunks);
  for (int layer = 0; layer < 2; ++layer) {
    int num_local = 0, num_computed = 0;
    // Long enough to poll, after which the next chunk may leave.
    const auto idle = [&] {
      pool.run(2, [](std::int64_t, int) {
        std::this_thread::sleep_for(std::chrono::microseconds(300));
      });
    };
    const PipelineWork work = {.experts =
                                   [&](auto offsets, auto rows, auto out) {
                                     if (num_chunks < 7) idle();
                                     compute_experts(problem, transport.rank(), offsets, rows, out);
                                     ++num_computed;
                                   },
                               .local_work = [&] { idle(), ++num_local; }};
    Matrix<float> sum(batch.x.rows(), problem.hidden);
    pipeline.run(layer == 0 ? first : second, batch.x, batch.topk_idx, batch.topk_weights,
                 batch.first_token, fmt::format("layer {}", layer), work, sum);
    EXPECT_EQ(sum, expected[index(transport.rank())]) << "rank " << index(transport.rank());
    EXPECT_EQ(num_local, 1);
    EXPECT_EQ(num_computed, 2 * num_chunks);
  }
}

inline std::vector<Matrix<float>> expected_sums(const ExchangeProblem& problem) {
  return reference_exchange(problem.batches, problem.placement, problem.options, test_expert);
}

/// What is tried: every mode, rule and row type.
inline std::vector<DispatchOptions> all_options(const Cluster& cluster) {
  std::vector<DispatchOptions> all{
      {.traffic = {.cluster = cluster}, .sums_before_return = false},
      {.traffic = {.cluster = cluster}, .row_type = ElementType::kF16},
      {.traffic = {.cluster = cluster, .copy_mode = CopyMode::kPerExpert}, .separates_own = false}};
  for (const auto mode : {CopyMode::kPerExpert, CopyMode::kPerRank, CopyMode::kPerNode}) {
    for (const auto rule :
         {ReplicaRule::kFewestRanks, ReplicaRule::kLocalFirst, ReplicaRule::kRandom}) {
      for (const auto type : {ElementType::kF32, ElementType::kBf16}) {
        all.push_back({.traffic = {.cluster = cluster, .copy_mode = mode, .replica_rule = rule},
                       .row_type = type});
      }
    }
  }
  return all;
}

inline std::string to_string(const DispatchOptions& options) {
  return fmt::format("{}x{} {}{}{} {} {}", options.traffic.cluster.num_nodes,
                     options.traffic.cluster.ranks_per_node, name_of(options.traffic.copy_mode),
                     options.sums_before_return ? "" : " without sums",
                     options.separates_own ? "" : " together",
                     name_of(options.traffic.replica_rule), name_of(options.row_type));
}

}  // namespace c2r::testing
