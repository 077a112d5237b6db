// Counts pairs of experts that tokens choose together, and adds up counts of several traces.
#include "c2r/collaboration/collaboration.h"

#include <algorithm>
#include <mutex>

#include "c2r/collaboration/checks_internal.h"
#include "c2r/collaboration/limits.h"
#include "c2r/core/error.h"
#include "c2r/core/parallel.h"
#include "c2r/core/shown.h"
#include "c2r/io/memory.h"
#include "c2r/routing/routing.h"
#include "c2r/trace/trace_chunks.h"

namespace c2r {
namespace {

// What one thread counts before it is added to the layer's 64-bit totals; a chunk fits in 32 bits.
struct ChunkCounts {
  std::int64_t num_experts = 0;
  std::vector<std::uint32_t> pairs;  // [num_experts, num_experts], (earlier, later choice)
  std::vector<std::uint32_t> load;   // [num_experts]

  void reset(std::int64_t experts) {
    num_experts = experts;
    pairs.assign(static_cast<std::size_t>(experts * experts), 0);
    load.assign(static_cast<std::size_t>(experts), 0);
  }

  bool has_repeated_choice() const {
    for (std::size_t e = 0; e < load.size(); ++e) {
      if (pairs[e * load.size() + e] != 0) return true;
    }
    return false;
  }

  void add_to(CollaborationMatrix& counts) const {
    for (std::int64_t a = 0; a < num_experts; ++a) {
      counts(a, a) += load[static_cast<std::size_t>(a)];
      for (std::int64_t b = 0; b < num_experts; ++b) {
        const std::uint32_t count = pairs[static_cast<std::size_t>(a * num_experts + b)];
        counts(a, b) += count;
        counts(b, a) += count;
      }
    }
  }
};

// kTopK 0 means that top_k is known at run time only. Ids must be below counts.num_experts.
template <int kTopK, class Stored>
void count_chunk(std::span<const Stored> ids, std::int64_t top_k, ChunkCounts& counts) {
  const auto k = kTopK > 0 ? std::size_t{kTopK} : static_cast<std::size_t>(top_k);
  const auto num_experts = static_cast<std::size_t>(counts.num_experts);
  for (std::size_t first = 0; first < ids.size(); first += k) {
    for (std::size_t a = 0; a < k; ++a) {
      const std::size_t row = ids[first + a] * num_experts;
      ++counts.load[ids[first + a]];
      for (std::size_t b = a + 1; b < k; ++b) ++counts.pairs[row + ids[first + b]];
    }
  }
}

template <class Stored>
void count_chunk_of_any_top_k(std::span<const Stored> ids, std::int64_t top_k,
                              ChunkCounts& counts) {
  switch (top_k) {
    case 2:
      return count_chunk<2>(ids, top_k, counts);
    case 4:
      return count_chunk<4>(ids, top_k, counts);
    case 6:
      return count_chunk<6>(ids, top_k, counts);
    case 8:
      return count_chunk<8>(ids, top_k, counts);
    default:
      return count_chunk<0>(ids, top_k, counts);
  }
}

// Counts the chunk if all its choices are present and valid, which is nearly always so and can be
// told without a branch per choice; otherwise returns false and leaves `counts` to be reset.
template <class Stored>
bool count_clean_chunk(std::span<const Stored> ids, std::int64_t top_k, ChunkCounts& counts) {
  Stored largest = 0;
  for (const Stored id : ids) largest = std::max(largest, id);
  if (largest >= counts.num_experts) return false;  // a mark for "no expert", or an error
  count_chunk_of_any_top_k(ids, top_k, counts);
  return !counts.has_repeated_choice();
}

bool count_clean_chunk(const Trace& trace, const TraceChunk& chunk, ChunkCounts& counts) {
  const std::int64_t top_k = trace.header().top_k;
  const auto first = static_cast<std::size_t>(chunk.begin * top_k);
  const auto size = static_cast<std::size_t>(chunk.num_tokens() * top_k);
  const StoredTopkIdx stored = trace.stored_topk_idx(chunk.layer);
  return stored.u16.empty() ? count_clean_chunk(stored.u8.subspan(first, size), top_k, counts)
                            : count_clean_chunk(stored.u16.subspan(first, size), top_k, counts);
}

}  // namespace

std::vector<std::int64_t> expert_loads(MatrixView<const std::int64_t> counts) {
  std::vector<std::int64_t> loads;
  for (std::int64_t e = 0; e < counts.rows(); ++e) loads.push_back(counts(e, e));
  return loads;
}

void add_collaboration(MatrixView<const ExpertId> topk_idx, CollaborationMatrix& counts) {
  check_is_square(counts);
  check_topk_idx(topk_idx, static_cast<std::int32_t>(counts.rows()), topk_idx.cols());
  for (std::int64_t t = 0; t < topk_idx.rows(); ++t) {
    for (const ExpertId a : topk_idx.row(t)) {
      if (a == kNoExpert) continue;
      for (const ExpertId b : topk_idx.row(t)) {
        if (b != kNoExpert) ++counts(static_cast<std::int64_t>(a), static_cast<std::int64_t>(b));
      }
    }
  }
}

CollaborationStatistics empty_statistics(const TraceHeader& header, bool has_pairs) {
  const auto num_layers = static_cast<std::size_t>(header.num_layers());
  const std::int64_t bytes = header.num_layers() * header.num_experts * header.num_experts * 8;
  const std::int64_t available = available_bytes().value_or(INT64_MAX);
  C2R_REQUIRE(bytes <= available, kUnsupported,
              "the counts of {} layers of {} experts take {} MB of memory, but {} MB are free",
              num_layers, header.num_experts, bytes / 1'000'000, available / 1'000'000);
  return {.header = header,
          .num_tokens = std::vector<std::int64_t>(num_layers, 0),
          .coactivation = std::vector<CollaborationMatrix>(
              num_layers, CollaborationMatrix(header.num_experts, header.num_experts)),
          .has_pairs = has_pairs};
}

CollaborationStatistics count_collaboration(const Trace& trace, int num_threads,
                                            Progress& progress) {
  auto statistics = empty_statistics(trace.header());
  std::ranges::fill(statistics.num_tokens, trace.num_tokens());
  std::vector<ChunkCounts> scratch(static_cast<std::size_t>(std::max(num_threads, 1)));
  std::mutex mutex;  // guards the totals, which are touched once a chunk
  for_each_chunk(trace, num_threads, progress, [&](const TraceChunk& chunk, int thread) {
    ChunkCounts& counts = scratch[static_cast<std::size_t>(thread)];
    counts.reset(trace.header().num_experts);
    CollaborationMatrix& total = statistics.coactivation[static_cast<std::size_t>(chunk.layer)];
    if (count_clean_chunk(trace, chunk, counts)) {
      const std::lock_guard lock(mutex);
      counts.add_to(total);
    } else {
      const auto topk_idx = trace.topk_idx(chunk.layer, chunk.begin, chunk.end);  // reports errors
      const std::lock_guard lock(mutex);
      add_collaboration(topk_idx, total);
    }
  });
  return statistics;
}

std::vector<CollaborationMatrix> count_pairs(const Trace& trace, std::span<const TokenRange> ranges,
                                             int num_threads) {
  const TraceHeader& header = trace.header();
  std::vector<CollaborationMatrix> layers(
      static_cast<std::size_t>(header.num_layers()),
      CollaborationMatrix(header.num_experts, header.num_experts));
  parallel_for(header.num_layers(), num_threads, [&](std::int64_t layer, int) {
    for (const TokenRange& piece : pieces_of(ranges)) {
      add_collaboration(trace.topk_idx(layer, piece.begin, piece.end),
                        layers[static_cast<std::size_t>(layer)]);
    }
  });
  return layers;
}

void merge(const CollaborationStatistics& from, CollaborationStatistics& into) {
  check_extents(from, "the statistics to merge");
  check_extents(into, "the statistics to merge into");
  const TraceHeader &a = into.header, &b = from.header;
  C2R_REQUIRE(a.num_experts == b.num_experts && a.top_k == b.top_k, kInvalidArgument,
              "cannot merge statistics of {} experts, top-{} with {} experts, top-{}",
              a.num_experts, a.top_k, b.num_experts, b.top_k);
  C2R_REQUIRE(a.layer_indices == b.layer_indices, kInvalidArgument,
              "cannot merge statistics of different layers: {} and {} MoE layers, or other indices",
              a.num_layers(), b.num_layers());
  C2R_REQUIRE(a.model == b.model, kInvalidArgument, "cannot merge statistics of '{}' and '{}'",
              shown(a.model), shown(b.model));
  C2R_REQUIRE(into.has_pairs == from.has_pairs, kInvalidArgument,
              "cannot merge statistics with and without co-activation counts");
  for (std::size_t layer = 0; layer < into.coactivation.size(); ++layer) {
    C2R_REQUIRE(from.num_tokens[layer] <= kMaxCountedTokens - into.num_tokens[layer],
                kInvalidArgument, "cannot merge statistics of more than {} tokens together",
                kMaxCountedTokens);
  }
  for (std::size_t layer = 0; layer < into.coactivation.size(); ++layer) {
    into.num_tokens[layer] += from.num_tokens[layer];
    const auto source = from.coactivation[layer].all();
    const auto target = into.coactivation[layer].all();
    std::ranges::transform(target, source, target.begin(), std::plus<>{});
  }
}

}  // namespace c2r
