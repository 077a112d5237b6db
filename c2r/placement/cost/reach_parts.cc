// Counts parts of a layer as the differences of one count that goes through all of them.
#include "c2r/placement/cost/reach_parts.h"

#include <algorithm>
#include <functional>

#include "c2r/core/error.h"
#include "c2r/trace/trace_chunks.h"

namespace c2r {
namespace {

void subtract(std::span<const std::int64_t> counts, std::span<std::int64_t> from) {
  std::ranges::transform(from, counts, from.begin(), std::minus());
}

// What `sum` counts more than `before`.
Reach added_since(const Reach& before, Reach sum) {
  subtract(before.num_tokens, sum.num_tokens);
  subtract(before.choices_on_rank.all(), sum.choices_on_rank.all());
  subtract(before.tokens_on_rank.all(), sum.tokens_on_rank.all());
  subtract(before.tokens_on_node.all(), sum.tokens_on_node.all());
  subtract(before.choices_of_expert.all(), sum.choices_of_expert.all());
  return sum;
}

}  // namespace

std::vector<Reach> count_reach_of_parts(const Trace& trace, std::int64_t layer,
                                        std::span<const std::vector<TokenRange>> parts,
                                        const HomesOfPiece& homes_of, const Placement& placement,
                                        const TrafficModel& traffic, const Progress* progress) {
  C2R_REQUIRE(placement.num_experts == trace.header().num_experts, kInvalidArgument,
              "the placement of layer {} is for {} experts, but the trace has {}", layer,
              placement.num_experts, trace.header().num_experts);
  ReachCounter counter(placement, traffic, progress);
  std::vector<RankId> scratch;
  if (counter.has_memory()) {
    std::vector<TokenRange> all;
    for (const auto& part : parts) all.insert(all.end(), part.begin(), part.end());
    for (const TokenRange& piece : pieces_of(ranges_outside(all, trace.num_tokens()))) {
      counter.serve_before(trace.topk_idx(layer, piece.begin, piece.end), homes_of(piece, scratch));
    }
  }
  std::vector<Reach> result;
  Reach before;
  for (const auto& part : parts) {
    for (const TokenRange& piece : pieces_of(part)) {
      counter.add(trace.topk_idx(layer, piece.begin, piece.end), homes_of(piece, scratch));
    }
    Reach sum = counter.finish();
    result.push_back(result.empty() ? sum : added_since(before, sum));
    before = std::move(sum);
  }
  return result;
}

std::vector<Reach> count_reach_of_parts(const Trace& trace, std::int64_t layer,
                                        std::span<const std::vector<TokenRange>> parts,
                                        std::span<const RankId> homes, const Placement& placement,
                                        const TrafficModel& traffic, const Progress* progress) {
  const auto given = [&](const TokenRange& piece, std::vector<RankId>&) {
    return homes.empty()
               ? homes
               : homes.subspan(std::size_t(piece.begin), std::size_t(piece.end - piece.begin));
  };
  return count_reach_of_parts(trace, layer, parts, given, placement, traffic, progress);
}

}  // namespace c2r
