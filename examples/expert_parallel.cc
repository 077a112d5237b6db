// Runs one MoE layer with an expert function of its own on four ranks: a token crosses to each rank
// once, however many of its experts live there, and one chunk travels while another is computed.
//
//   mpirun -n 4 expert_parallel      ranks are MPI processes (compiled with C2R_HAVE_MPI)
//   expert_parallel                  ranks are threads of this process (compiled without)
#include <fmt/format.h>

#include <chrono>
#include <cmath>

#include "c2r/core/parallel.h"
#include "c2r/dispatch/dispatch.h"
#include "c2r/dispatch/pipeline.h"
#ifdef C2R_HAVE_MPI
#include "c2r/transport/mpi/run_mpi.h"
#else
#include "c2r/transport/in_process.h"
#endif

namespace {

constexpr std::int32_t kNumRanks = 4, kNumExperts = 8;
constexpr std::int64_t kNumTokens = 100, kHidden = 16, kTopK = 2;

// Expert e multiplies a row by e + 1; rows of slot s are [offsets[s], offsets[s + 1]).
void compute(std::span<const c2r::ExpertId> slots, std::span<const std::int64_t> offsets,
             const c2r::GatheredRows& rows, c2r::MatrixView<float> out) {
  std::vector<float> x(kHidden);
  for (std::size_t s = 0; s < slots.size(); ++s) {
    for (std::int64_t row = offsets[s]; row < offsets[s + 1]; ++row) {
      rows.read_row(row, x);
      for (std::int64_t c = 0; c < kHidden; ++c) {
        out(row, c) = float(c2r::index(slots[s]) + 1) * x[std::size_t(c)];
      }
    }
  }
}

void run_rank(c2r::Transport& transport) {
  c2r::ThreadPool pool(2);
  const auto placement = c2r::place_contiguous(kNumExperts, kNumRanks);
  const auto slots = placement.slots.row(std::int64_t(c2r::index(transport.rank())));
  c2r::Dispatcher dispatcher(
      transport, pool, placement,
      {.traffic = {.cluster = {.num_nodes = 1, .ranks_per_node = kNumRanks}}});
  // Every token chooses experts 2 and 3, which share a rank, with weights 0.25 and 0.75.
  c2r::Matrix<c2r::ExpertId> topk_idx(kNumTokens, kTopK);
  c2r::Matrix<float> topk_weights(kNumTokens, kTopK), x(kNumTokens, kHidden, 2), sum = x;
  std::ranges::fill(sum.all(), 0.0F);
  for (std::int64_t t = 0; t < kNumTokens; ++t) {
    topk_idx(t, 0) = c2r::ExpertId{2}, topk_weights(t, 0) = 0.25F;
    topk_idx(t, 1) = c2r::ExpertId{3}, topk_weights(t, 1) = 0.75F;
  }
  c2r::Pipeline pipeline(pool, /*num_chunks=*/2);
  pipeline.run(
      dispatcher, x, topk_idx, topk_weights, /*first_token=*/0, "layer 0",
      {.experts = [&](auto offsets, auto rows, auto out) { compute(slots, offsets, rows, out); }},
      sum);
  fmt::print("rank {}: {} (expected 7.5), {} bytes sent to rank 1\n", c2r::index(transport.rank()),
             sum(kNumTokens - 1, kHidden - 1), transport.sent().num_bytes[1]);
}

}  // namespace

int main() try {
#ifdef C2R_HAVE_MPI
  c2r::run_mpi(run_rank, std::chrono::seconds(30),
               [](const std::string& line) { fmt::print(stderr, "{}\n", line); });
#else
  c2r::run_in_process(kNumRanks, run_rank);
#endif
} catch (const std::exception& e) {
  fmt::print(stderr, "{}\n", e.what());
  return 1;
}
