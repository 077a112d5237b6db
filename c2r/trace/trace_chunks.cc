// Chunks of a trace, and the loop over them on several threads.
#include "c2r/trace/trace_chunks.h"

#include <algorithm>
#include <mutex>

#include "c2r/core/parallel.h"

namespace c2r {

std::vector<TokenRange> pieces_of(std::span<const TokenRange> ranges) {
  std::vector<TokenRange> pieces;
  for (const TokenRange& range : ranges) {
    for (std::int64_t begin = range.begin; begin < range.end; begin += kMaxChunkTokens) {
      pieces.push_back({begin, std::min(begin + kMaxChunkTokens, range.end)});
    }
  }
  return pieces;
}

void for_each_chunk(const Trace& trace, int num_threads, Progress& progress,
                    const std::function<void(const TraceChunk&, int)>& body) {
  const auto pieces = pieces_of(std::vector<TokenRange>{{0, trace.num_tokens()}});
  const std::int64_t num_chunks = std::ssize(pieces);
  const std::int64_t num_tasks = trace.header().num_layers() * num_chunks;
  std::mutex mutex;
  std::int64_t num_done = 0;
  parallel_for(num_tasks, num_threads, [&](std::int64_t task, int thread) {
    const TokenRange& piece = pieces[static_cast<std::size_t>(task % num_chunks)];
    body({.layer = task / num_chunks, .begin = piece.begin, .end = piece.end}, thread);
    const std::lock_guard lock(mutex);
    progress.update(++num_done, num_tasks);
  });
}

}  // namespace c2r
