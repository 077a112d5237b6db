#include "c2r/routing/trace_chunks.h"

#include <algorithm>
#include <mutex>

#include "c2r/core/parallel.h"

namespace c2r {

void for_each_chunk(const Trace& trace, int num_threads, Progress& progress,
                    const std::function<void(const TraceChunk&, int)>& body) {
  const std::int64_t num_chunks = (trace.num_tokens() + kMaxChunkTokens - 1) / kMaxChunkTokens;
  const std::int64_t num_tasks = trace.header().num_layers() * num_chunks;
  std::mutex mutex;
  std::int64_t num_done = 0;
  parallel_for(num_tasks, num_threads, [&](std::int64_t task, int thread) {
    const std::int64_t begin = task % num_chunks * kMaxChunkTokens;
    body({.layer = task / num_chunks,
          .begin = begin,
          .end = std::min(begin + kMaxChunkTokens, trace.num_tokens())},
         thread);
    const std::lock_guard lock(mutex);
    progress.update(++num_done, num_tasks);
  });
}

}  // namespace c2r
