// Measures what it costs to move rows: everything that a rank does for dispatch and combine but
// making the handle, waiting and computing experts, which read rows where they were received.
//
// Four ranks are threads of one process and take turns, so that each has all cores while it works;
// the time of a round is the sum over the ranks. Experts return their rows as they are, which is
// not timed. What the in-process transport copies is included.
#include <benchmark/benchmark.h>

#include <chrono>
#include <mutex>
#include <numeric>

#include "c2r/core/rng.h"
#include "c2r/dispatch/dispatch.h"
#include "c2r/dispatch/reference.h"
#include "c2r/transport/collectives.h"
#include "c2r/transport/in_process.h"

namespace c2r {
namespace {

// A layer of OLMoE, 64 experts on 4 ranks.
constexpr std::int32_t kNumRanks = 4, kNumExperts = 64, kTopK = 8;
constexpr std::int64_t kHidden = 2048, kTokensPerRank = 128;

std::vector<TokenBatch> random_batches() {
  std::mt19937_64 rng(1);
  std::vector<std::int32_t> experts(kNumExperts);
  std::iota(experts.begin(), experts.end(), 0);
  std::vector<TokenBatch> batches;
  for (std::int32_t r = 0; r < kNumRanks; ++r) {
    TokenBatch& batch = batches.emplace_back(TokenBatch{.x = {kTokensPerRank, kHidden},
                                                        .topk_idx = {kTokensPerRank, kTopK},
                                                        .topk_weights = {kTokensPerRank, kTopK},
                                                        .first_token = r * kTokensPerRank});
    for (float& v : batch.x.all()) v = float(double(rng() >> 11) * 0x1p-52 - 1);
    for (float& v : batch.topk_weights.all()) v = float(double(rng() >> 11) * 0x1p-53);
    for (std::int64_t t = 0; t < kTokensPerRank; ++t) {
      shuffle(std::span(experts), rng);
      for (std::int32_t k = 0; k < kTopK; ++k) {
        batch.topk_idx(t, k) = ExpertId{experts[std::size_t(k)]};
      }
    }
  }
  return batches;
}

// The ranks' turns, and the time that they have worked.
struct Turns {
  std::mutex mutex;
  std::chrono::steady_clock::duration worked{};

  template <class Work>
  void take(const Work& work) {
    const std::lock_guard lock(mutex);
    const auto start = std::chrono::steady_clock::now();
    work();
    worked += std::chrono::steady_clock::now() - start;
  }
};

// An expert that returns its rows as they are.
void copy_rows(std::span<const std::int64_t> offsets, const GatheredRows& rows,
               Matrix<float>& out) {
  for (auto row = offsets.front(); row < offsets.back(); ++row) rows.read_row(row, out.row(row));
}

// One round of this rank.
void run_round(Transport& transport, Handle& handle, const TokenBatch& batch, Turns& turns,
               Matrix<float>& out, Matrix<float>& sum) {
  out.reshape(handle.num_rows(), kHidden);
  GatheredRows rows;
  std::ranges::fill(sum.all(), 0.0F);
  barrier(transport, "start");
  turns.take([&] { handle.start_dispatch(batch.x); });
  turns.take([&] { rows = handle.dispatch_own(); });
  copy_rows(handle.own_offsets(), rows, out);
  handle.wait();
  turns.take([&] { rows = handle.finish_dispatch(); });
  copy_rows(handle.offsets(), rows, out);
  turns.take([&] { handle.start_combine(out); });
  turns.take([&] { handle.combine_own(out); });
  handle.wait();
  turns.take([&] { handle.finish_combine(sum); });
}

void BM_MoveRows(benchmark::State& state, CopyMode mode, ElementType type, int num_threads) {
  const DispatchOptions options{
      .traffic = {.cluster = {.num_nodes = 2, .ranks_per_node = kNumRanks / 2}, .copy_mode = mode},
      .row_type = type};
  const Placement placement = place_contiguous(kNumExperts, kNumRanks);
  const std::vector<TokenBatch> batches = random_batches();
  const auto expected =
      reference_exchange(batches, placement, options,
                         [](ExpertId, auto x, auto y) { std::ranges::copy(x, y.begin()); });
  std::vector<Matrix<float>> sums(kNumRanks, Matrix<float>(kTokensPerRank, kHidden));
  Turns turns;
  std::int64_t num_rounds = 0;
  run_in_process(kNumRanks, [&](Transport& transport) {
    const std::size_t r = index(transport.rank());
    const TokenBatch& batch = batches[r];
    ThreadPool pool(num_threads);
    Dispatcher dispatcher(transport, pool, placement, options);
    Handle handle =
        dispatcher.make_handle(batch.topk_idx, batch.topk_weights, batch.first_token, "bench");
    Matrix<float> out;
    for (int round = 0; round < 2; ++round) {  // gets the memory
      run_round(transport, handle, batch, turns, out, sums[r]);
    }
    barrier(transport, "end");
    if (r > 0) {  // follows rank 0, which asks the benchmark
      for (;;) {
        std::int64_t goes_on = 0;
        all_reduce(transport, {&goes_on, 1}, Reduction::kMax, "next");
        if (goes_on == 0) return;
        run_round(transport, handle, batch, turns, out, sums[r]);
        barrier(transport, "end");
      }
    }
    for (auto _ : state) {
      turns.worked = {};
      std::int64_t goes_on = 1;
      all_reduce(transport, {&goes_on, 1}, Reduction::kMax, "next");
      run_round(transport, handle, batch, turns, out, sums[r]);
      barrier(transport, "end");
      state.SetIterationTime(std::chrono::duration<double>(turns.worked).count());
      ++num_rounds;
    }
    std::int64_t goes_on = 0;
    all_reduce(transport, {&goes_on, 1}, Reduction::kMax, "next");
  });
  if (sums != expected) return state.SkipWithError("the result is wrong");
  const std::int64_t num_choices = kNumRanks * kTokensPerRank * kTopK;
  state.SetItemsProcessed(num_rounds * num_choices);
  state.counters["time_per_choice"] = benchmark::Counter(
      double(num_rounds * num_choices), benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

const bool kRegistered = [] {
  for (const CopyMode mode : {CopyMode::kPerExpert, CopyMode::kPerRank, CopyMode::kPerNode}) {
    for (const ElementType type : {ElementType::kBf16, ElementType::kF32}) {
      for (const int num_threads : {1, 2}) {
        benchmark::RegisterBenchmark(
            fmt::format("move_rows/{}/{}/threads:{}", name_of(mode), name_of(type), num_threads)
                .c_str(),
            BM_MoveRows, mode, type, num_threads)
            ->UseManualTime()
            ->Unit(benchmark::kMillisecond);
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace c2r
