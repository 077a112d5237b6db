// Computes token sets, pair counts and reach from each form of routed tokens.
#include "c2r/plan/routed_tokens.h"

#include <algorithm>
#include <array>
#include <atomic>

#include "c2r/core/at.h"
#include "c2r/core/error.h"
#include "c2r/core/parallel.h"
#include "c2r/placement/cost/reach_parts.h"
#include "c2r/trace/trace_chunks.h"

namespace c2r {
namespace {

CollaborationMatrix pair_counts_of_sets(const TokenSets& sets) {
  CollaborationMatrix counts(sets.num_experts, sets.num_experts);
  for (std::int64_t set = 0; set < sets.num_sets(); ++set) {
    for (const ExpertId a : sets.experts.row(set)) {
      for (const ExpertId b : sets.experts.row(set)) {
        if (a == kNoExpert || b == kNoExpert) continue;
        counts(static_cast<std::int64_t>(a), static_cast<std::int64_t>(b)) +=
            sets.multiplicity[static_cast<std::size_t>(set)];
      }
    }
  }
  return counts;
}

// Counts every token of the sets, kMaxChunkTokens at a time, so that the memory does not grow with
// the multiplicities.
Reach reach_of_sets(const TokenSets& sets, const Placement& placement, const TrafficModel& traffic,
                    const Progress* progress) {
  ReachCounter counter(placement, traffic, progress);
  Matrix<ExpertId> chunk(std::min(sets.num_tokens, kMaxChunkTokens), sets.top_k());
  std::int64_t filled = 0;
  const auto append = [&](std::span<const ExpertId> experts) {
    std::ranges::copy(experts, chunk.row(filled).begin());
    if (++filled < chunk.rows()) return;
    counter.add(chunk, {});
    filled = 0;
  };
  std::int64_t num_left = sets.num_tokens;
  for (std::int64_t set = 0; set < sets.num_sets(); ++set) {
    const std::int64_t multiplicity = sets.multiplicity[static_cast<std::size_t>(set)];
    for (std::int64_t t = 0; t < multiplicity; ++t) append(sets.experts.row(set));
    num_left -= multiplicity;
  }
  const std::vector<ExpertId> no_choice(static_cast<std::size_t>(sets.top_k()), kNoExpert);
  for (; num_left > 0; --num_left) append(no_choice);
  if (filled > 0) counter.add(MatrixView<const ExpertId>(chunk).rows(0, filled), {});
  return counter.finish();
}

std::vector<Reach> reach_of_all_sets(const ModelTokenSets& sets,
                                     std::span<const Placement> placements,
                                     const TrafficModel& traffic, int num_threads,
                                     Progress& progress) {
  C2R_REQUIRE(traffic.homes == Homes::kUniform, kInvalidArgument,
              "{}: token sets know no sequences, so their homes can only be uniform, not {}",
              sets.name, name_of(traffic.homes));
  C2R_REQUIRE(placements.size() == sets.layers.size(), kInvalidArgument,
              "there are {} placements for {} layers", placements.size(), sets.layers.size());
  std::vector<Reach> reach(placements.size());
  std::atomic<std::int64_t> num_done = 0;
  parallel_for(std::ssize(reach), num_threads, [&](std::int64_t l, int thread) {
    const auto layer = static_cast<std::size_t>(l);
    reach[layer] = reach_of_sets(sets.layers[layer], placements[layer], traffic, &progress);
    ++num_done;
    if (thread == 0) progress.update(num_done, std::ssize(reach));
  });
  progress.update(std::ssize(reach), std::ssize(reach));
  return reach;
}

// The pairs of one layer as sets. Of top-2 also the sets of one expert: an expert's load without
// the pairs that it is in; and tokens without a choice.
TokenSets sets_of_pairs(const CollaborationStatistics& statistics, std::int64_t layer,
                        std::string_view name) {
  const CollaborationMatrix& counts = at(statistics.coactivation, layer);
  const bool is_top_2 = statistics.header.top_k <= 2;
  std::vector<std::array<std::int64_t, 3>> found;  // two experts, -1 for none, and how often
  std::int64_t num_tokens = 0;
  for (std::int64_t a = 0; a < counts.rows(); ++a) {
    std::int64_t alone = counts(a, a);
    for (std::int64_t b = 0; b < counts.cols(); ++b) {
      if (a == b) continue;
      alone -= counts(a, b);
      if (a < b && counts(a, b) > 0) found.push_back({a, b, counts(a, b)});
    }
    C2R_REQUIRE(!is_top_2 || alone >= 0, kInvalidArgument,
                "{}: layer {}: expert {} is in more pairs than it has tokens, which top-2 does not "
                "allow",
                name, layer, a);
    if (is_top_2 && alone > 0) found.push_back({a, -1, alone});
  }
  TokenSets sets{.num_experts = statistics.header.num_experts, .experts = {std::ssize(found), 2}};
  for (std::size_t set = 0; set < found.size(); ++set) {
    const auto [a, b, count] = found[set];
    sets.experts(static_cast<std::int64_t>(set), 0) = ExpertId{static_cast<std::int32_t>(a)};
    sets.experts(static_cast<std::int64_t>(set), 1) =
        b < 0 ? kNoExpert : ExpertId{static_cast<std::int32_t>(b)};
    sets.multiplicity.push_back(count);
    num_tokens += count;
  }
  sets.num_tokens = is_top_2 ? std::max(num_tokens, at(statistics.num_tokens, layer)) : num_tokens;
  return sets;
}

std::vector<Reach> reach_of_counts(const RoutedTokens& tokens,
                                   std::span<const Placement> placements,
                                   const TrafficModel& traffic) {
  const CollaborationStatistics& statistics = *tokens.statistics;
  C2R_REQUIRE(statistics.has_pairs, kInvalidArgument,
              "{} holds loads without pairs, which say nothing about copies", tokens.name);
  std::vector<Reach> reach;
  for (std::size_t layer = 0; layer < placements.size(); ++layer) {
    reach.push_back(reach_from_pairs(statistics.coactivation[layer], statistics.num_tokens[layer],
                                     statistics.header.top_k, placements[layer], traffic));
  }
  return reach;
}

}  // namespace

std::vector<TokenRange> tokens_of(const Trace& trace, SequencePart part) {
  auto ranges = ranges_of(trace, part);
  const auto num_sequences = trace.sequence_starts().size();
  C2R_REQUIRE(num_tokens_in(ranges) > 0, kInvalidArgument, "{} has no tokens{}", trace.path(),
              trace.num_tokens() == 0
                  ? ""
                  : fmt::format(" in the part '{}' of its {} sequence{}: take the part 'all', or "
                                "import more files together; for npy, --sequences says where "
                                "sequences begin",
                                name_of(part), num_sequences, num_sequences == 1 ? "" : "s"));
  return ranges;
}

std::vector<TokenRange> tokens_of(const JoinedTraces& joined, std::span<const Trace> traces,
                                  SequencePart part) {
  std::vector<TokenRange> ranges;
  for (std::size_t i = 0; i < traces.size(); ++i) {
    const std::int64_t first = at(joined.parts, i).begin;
    for (const TokenRange& range : ranges_of(traces[i], part)) {
      ranges.push_back({first + range.begin, first + range.end});
    }
  }
  C2R_REQUIRE(num_tokens_in(ranges) > 0, kInvalidArgument, "{} has no tokens in the part '{}'",
              joined.trace.path(), name_of(part));
  return ranges;
}

RoutedTokens routed_tokens_of(const Trace& trace, SequencePart part) {
  return {.trace = &trace,
          .ranges = tokens_of(trace, part),
          .name = fmt::format("{}, {}", trace.path(), name_of(part))};
}

RoutedTokens routed_tokens_of(const CollaborationStatistics& statistics, std::string_view name) {
  C2R_REQUIRE(std::ranges::max(statistics.num_tokens) > 0, kInvalidArgument, "{} has no tokens",
              name);
  return {.statistics = &statistics,
          .name = fmt::format("{}, {}", name, statistics.has_pairs ? "pair counts" : "loads")};
}

ModelTokenSets token_sets_of_pairs(const CollaborationStatistics& statistics,
                                   std::string_view name) {
  C2R_REQUIRE(statistics.has_pairs, kInvalidArgument,
              "{} holds loads only, which do not say which experts are chosen together", name);
  ModelTokenSets sets{.header = statistics.header, .name = std::string(name)};
  sets.header.top_k = 2;
  for (std::int64_t layer = 0; layer < statistics.num_layers(); ++layer) {
    sets.layers.push_back(sets_of_pairs(statistics, layer, name));
  }
  return sets;
}

RoutedTokens tokens_of(const ModelTokenSets& sets) {
  const TraceHeader& header = sets.header;
  try {
    check_header(header, sets.name);
  } catch (const Error& e) {
    C2R_THROW(kInvalidArgument, "{}", e.what());
  }
  C2R_REQUIRE(std::ssize(sets.layers) == header.num_layers(), kInvalidArgument,
              "{}: there are token sets of {} layers, but the header has {}", sets.name,
              sets.layers.size(), header.num_layers());
  for (std::size_t layer = 0; layer < sets.layers.size(); ++layer) {
    const TokenSets& of_layer = sets.layers[layer];
    try {
      C2R_REQUIRE(of_layer.num_experts == header.num_experts && of_layer.top_k() == header.top_k,
                  kInvalidArgument,
                  "the token sets are of {} experts, top-{}, but the header has {}, top-{}",
                  of_layer.num_experts, of_layer.top_k(), header.num_experts, header.top_k);
      check_token_sets(of_layer);
    } catch (const Error& e) {
      C2R_THROW(kInvalidArgument, "{}: layer {}: {}", sets.name, layer, e.what());
    }
    C2R_REQUIRE(of_layer.num_tokens > 0 && of_layer.num_tokens == sets.layers[0].num_tokens,
                kInvalidArgument, "{}: layer {} has {} tokens, but must have {}", sets.name, layer,
                of_layer.num_tokens, std::max<std::int64_t>(sets.layers[0].num_tokens, 1));
  }
  return {.name = sets.name, .sets = &sets};
}

TokenSets token_sets_of(const RoutedTokens& tokens, std::int64_t layer) {
  C2R_REQUIRE(tokens.statistics == nullptr, kInvalidArgument,
              "{} holds counts, which do not say which experts each token chose", tokens.name);
  if (tokens.sets != nullptr) return tokens.sets->layers[static_cast<std::size_t>(layer)];
  if (!tokens.scenarios.empty()) {
    return collect_token_sets(*tokens.trace, layer, tokens.scenarios);
  }
  return collect_token_sets(*tokens.trace, layer, tokens.ranges);
}

std::vector<CollaborationMatrix> pair_counts_of(const RoutedTokens& tokens, int num_threads) {
  if (tokens.trace != nullptr) return count_pairs(*tokens.trace, tokens.ranges, num_threads);
  if (tokens.statistics != nullptr) return tokens.statistics->coactivation;
  std::vector<CollaborationMatrix> counts;
  for (const TokenSets& sets : tokens.sets->layers) counts.push_back(pair_counts_of_sets(sets));
  return counts;
}

std::vector<Reach> reach_of(const RoutedTokens& tokens, std::span<const Placement> placements,
                            const TrafficModel& traffic, int num_threads, Progress& progress) {
  if (tokens.trace != nullptr) {
    return count_reach(*tokens.trace, tokens.ranges, placements, traffic, num_threads, progress);
  }
  if (tokens.sets != nullptr) {
    return reach_of_all_sets(*tokens.sets, placements, traffic, num_threads, progress);
  }
  return reach_of_counts(tokens, placements, traffic);
}

Reach reach_of_layer(const RoutedTokens& tokens, std::int64_t layer, const Placement& placement,
                     const TrafficModel& traffic, const Progress& progress) {
  C2R_REQUIRE(tokens.statistics == nullptr && traffic.homes == Homes::kUniform, kInvalidArgument,
              "{}: one layer is counted of tokens with uniform homes only", tokens.name);
  if (tokens.sets != nullptr)
    return reach_of_sets(at(tokens.sets->layers, layer), placement, traffic, &progress);
  return count_reach_of_parts(*tokens.trace, layer, std::span(&tokens.ranges, 1),
                              std::span<const RankId>(), placement, traffic, &progress)[0];
}

}  // namespace c2r
