// Fan-out: distinct ranks of each token, counted on traces or derived from pair counts.
#include "c2r/collaboration/fan_out.h"

#include <algorithm>
#include <array>
#include <functional>
#include <mutex>

#include "c2r/collaboration/checks_internal.h"
#include "c2r/core/error.h"
#include "c2r/routing/routing.h"
#include "c2r/trace/trace_chunks.h"

namespace c2r {
namespace {

void check_ranks_of_experts(std::span<const std::int32_t> rank_of_expert,
                            std::int32_t num_experts) {
  C2R_REQUIRE(std::ssize(rank_of_expert) == num_experts, kInvalidArgument,
              "{} experts are given a rank, but the layer has {}", rank_of_expert.size(),
              num_experts);
  const auto outside = std::ranges::find_if_not(
      rank_of_expert, [](std::int32_t rank) { return 0 <= rank && rank < kMaxExperts; });
  C2R_REQUIRE(outside == rank_of_expert.end(), kInvalidArgument, "rank {} is not in [0, {}]",
              *outside, kMaxExperts - 1);
}

std::int64_t distinct_ranks(MatrixView<const ExpertId> topk_idx,
                            std::span<const std::int32_t> rank_of_expert) {
  std::array<std::int64_t, kMaxExperts> last_token;  // that reached the rank
  last_token.fill(-1);
  std::int64_t count = 0;
  for (std::int64_t t = 0; t < topk_idx.rows(); ++t) {
    for (const ExpertId id : topk_idx.row(t)) {
      if (id == kNoExpert) continue;
      std::int64_t& last = last_token[static_cast<std::size_t>(rank_of_expert[index(id)])];
      if (last != t) ++count;
      last = t;
    }
  }
  return count;
}

}  // namespace

std::vector<std::int64_t> count_fan_out(const Trace& trace,
                                        std::span<const std::int32_t> rank_of_expert,
                                        int num_threads, Progress& progress) {
  check_ranks_of_experts(rank_of_expert, trace.header().num_experts);
  std::vector<std::int64_t> totals(static_cast<std::size_t>(trace.header().num_layers()), 0);
  std::mutex mutex;
  for_each_chunk(trace, num_threads, progress, [&](const TraceChunk& chunk, int) {
    const auto topk_idx = trace.topk_idx(chunk.layer, chunk.begin, chunk.end);
    const std::int64_t count = distinct_ranks(topk_idx, rank_of_expert);
    const std::lock_guard lock(mutex);
    totals[static_cast<std::size_t>(chunk.layer)] += count;
  });
  return totals;
}

std::optional<std::vector<std::int64_t>> count_fan_out(
    const CollaborationStatistics& statistics, std::span<const std::int32_t> rank_of_expert) {
  check_ranks_of_experts(rank_of_expert, statistics.header.num_experts);
  check_extents(statistics, "the statistics");
  if (statistics.header.top_k > 2 || !statistics.has_pairs) return std::nullopt;
  std::vector<std::int64_t> totals;
  for (const CollaborationMatrix& counts : statistics.coactivation) {
    std::int64_t reached = 0;  // a token reaches one rank per choice, less one if both are in one
    for (std::int64_t a = 0; a < counts.rows(); ++a) {
      reached += counts(a, a);
      for (std::int64_t b = a + 1; b < counts.cols(); ++b) {
        const bool is_intra = rank_of_expert[static_cast<std::size_t>(a)] ==
                              rank_of_expert[static_cast<std::size_t>(b)];
        if (is_intra) reached -= counts(a, b);
      }
    }
    totals.push_back(reached);
  }
  return totals;
}

std::optional<FanOutOfSplit> fan_out_of_split(const CollaborationStatistics& statistics,
                                              std::span<const Trace> traces, std::int32_t ep_size,
                                              int num_threads, Progress& progress) {
  const std::int32_t num_experts = statistics.header.num_experts;
  C2R_REQUIRE(ep_size >= 1 && num_experts % ep_size == 0, kInvalidArgument,
              "{} experts cannot be split evenly over {} ranks", num_experts, ep_size);
  std::vector<std::int32_t> ranks(static_cast<std::size_t>(num_experts));
  for (std::int32_t e = 0; e < num_experts; ++e) {
    ranks[static_cast<std::size_t>(e)] = e / (num_experts / ep_size);
  }
  std::vector<std::int64_t> totals(statistics.num_tokens.size(), 0);
  for (const Trace& trace : traces) {
    progress.begin(fmt::format("fan-out over {} ranks", ep_size));
    const auto counted = count_fan_out(trace, ranks, num_threads, progress);
    C2R_REQUIRE(counted.size() == totals.size(), kInvalidArgument,
                "{} has {} layers, but the statistics have {}", trace.path(), counted.size(),
                totals.size());
    std::ranges::transform(totals, counted, totals.begin(), std::plus<>{});
  }
  if (traces.empty()) {
    const auto counted = count_fan_out(statistics, ranks);
    if (!counted) return std::nullopt;
    totals = *counted;
  }
  FanOutOfSplit split{.ep_size = ep_size};
  for (std::size_t layer = 0; layer < totals.size(); ++layer) {
    const auto num_tokens =
        static_cast<double>(std::max<std::int64_t>(statistics.num_tokens[layer], 1));
    split.per_layer.push_back(static_cast<double>(totals[layer]) / num_tokens);
    split.mean += split.per_layer.back() / static_cast<double>(totals.size());
  }
  return split;
}

}  // namespace c2r
