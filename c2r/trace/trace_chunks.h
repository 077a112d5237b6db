// Iteration over the tokens of a trace in chunks that fit the caches, on several threads.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "c2r/core/progress.h"
#include "c2r/trace/sequence_split.h"
#include "c2r/trace/trace.h"

namespace c2r {

/// Tokens [begin, end) of one layer.
struct TraceChunk {
  std::int64_t layer = 0, begin = 0, end = 0;

  std::int64_t num_tokens() const { return end - begin; }
};

/// No chunk or piece has more tokens, so 32 bits count whatever happens at most once a token.
inline constexpr std::int64_t kMaxChunkTokens = 1 << 16;

/// Splits ranges into pieces of at most kMaxChunkTokens tokens, in the same order.
std::vector<TokenRange> pieces_of(std::span<const TokenRange> ranges);

/// Calls `body(chunk, thread)` for chunks that together cover every token of every layer once;
/// `thread`, in [0, num_threads), tells threads apart that use scratch memory of their own. Reports
/// the number of finished chunks to `progress`.
/// @throws what the body threw for the first chunk that failed (parallel_for())
void for_each_chunk(const Trace& trace, int num_threads, Progress& progress,
                    const std::function<void(const TraceChunk& chunk, int thread)>& body);

}  // namespace c2r
