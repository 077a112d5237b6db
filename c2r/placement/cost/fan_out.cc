// Computes fan-out from the reach of contiguous placements.
#include "c2r/placement/cost/fan_out.h"

#include <algorithm>
#include <numeric>

#include "c2r/core/at.h"
#include "c2r/core/error.h"
#include "c2r/placement/cost/reach.h"
#include "c2r/placement/placement.h"

namespace c2r {
namespace {

// The sum over tokens of the ranks that serve each.
std::int64_t ranks_reached(const Reach& reach) {
  const auto tokens = reach.tokens_on_rank.all();
  return std::accumulate(tokens.begin(), tokens.end(), std::int64_t{0}) / reach.denominator;
}

// Adds to `totals` [num_layers].
void add_trace(const Trace& trace, const Placement& placement, const TrafficModel& traffic,
               int num_threads, Progress& progress, std::span<std::int64_t> totals) {
  C2R_REQUIRE(trace.header().num_layers() == std::ssize(totals), kInvalidArgument,
              "{} has {} layers, but the statistics have {}", trace.path(),
              trace.header().num_layers(), totals.size());
  const std::vector placements(totals.size(), placement);
  const auto reach = count_reach(trace, ranges_of(trace, SequencePart::kAll), placements, traffic,
                                 num_threads, progress);
  for (std::size_t layer = 0; layer < totals.size(); ++layer) {
    totals[layer] += ranks_reached(reach[layer]);
  }
}

}  // namespace

std::optional<FanOutOfSplit> fan_out_of_split(const CollaborationStatistics& statistics,
                                              std::span<const Trace> traces, std::int32_t ep_size,
                                              int num_threads, Progress& progress) {
  const TraceHeader& header = statistics.header;
  const Placement placement = place_contiguous(header.num_experts, ep_size);
  const TrafficModel traffic = {.cluster = {.ranks_per_node = ep_size}};
  std::vector<std::int64_t> totals(statistics.num_tokens.size());
  for (const Trace& trace : traces) {
    progress.begin(fmt::format("fan-out over {} ranks", ep_size));
    add_trace(trace, placement, traffic, num_threads, progress, totals);
  }
  if (traces.empty()) {
    if (header.top_k > 2 || !statistics.has_pairs) return std::nullopt;
    C2R_REQUIRE(statistics.coactivation.size() == totals.size(), kInvalidArgument,
                "the statistics count the tokens of {} layers and the pairs of {}", totals.size(),
                statistics.coactivation.size());
    for (std::size_t layer = 0; layer < totals.size(); ++layer) {
      totals[layer] = ranks_reached(reach_from_pairs(statistics.coactivation[layer],
                                                     statistics.num_tokens[layer], header.top_k,
                                                     placement, traffic));
    }
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
