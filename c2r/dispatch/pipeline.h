// Dispatch, experts and combine of a layer in chunks: one travels while another is computed.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "c2r/core/matrix.h"
#include "c2r/dispatch/dispatch.h"

namespace c2r {

/// Moves bytes. Whoever computes calls it about every millisecond: between two experts, say.
using Poll = std::function<void()>;

/// What a rank computes. Neither function knows of other ranks.
struct PipelineWork {
  /// Gives each row its result: rows of local slot s are [offsets[s], offsets[s + 1]) of `rows` and
  /// `out`, both [num_rows, hidden]. Called once for each chunk, also for 0 rows.
  std::function<void(std::span<const std::int64_t> offsets, MatrixView<const float> rows,
                     MatrixView<float> out, const Poll& poll)>
      experts;
  /// What needs no other rank, such as a shared expert; done while the first chunk travels. Empty:
  /// nothing.
  std::function<void(const Poll& poll)> meanwhile;
};

/// Where the time of one run went, on this rank. Together they are all of it.
struct PipelineTimes {
  using Duration = std::chrono::steady_clock::duration;
  Duration handles{};          // who sends what to whom
  Duration start_dispatch{};   // rows into send buffers
  Duration meanwhile{};        // PipelineWork::meanwhile
  Duration wait_dispatch{};    // for rows that have not arrived
  Duration finish_dispatch{};  // rows to their experts
  Duration experts{};          // PipelineWork::experts
  Duration start_combine{};    // weighted sums into send buffers
  Duration wait_combine{};     // for results that have not arrived
  Duration finish_combine{};   // results to their tokens
};

/// Runs layers, and keeps the memory between calls.
class Pipeline {
 public:
  /// @param num_chunks the same on every rank; 1: nothing overlaps but `meanwhile`
  /// @throws Error(kInvalidArgument) if `num_chunks` is not positive
  explicit Pipeline(std::int32_t num_chunks);

  /// Adds each token's weighted sum of the layer's expert outputs to its row of `sum`. Collective.
  /// The result does not depend on the number of chunks.
  /// @param x,sum [num_tokens, hidden]; the rest as Dispatcher::make_handle()
  PipelineTimes run(Dispatcher& dispatcher, MatrixView<const float> x,
                    MatrixView<const ExpertId> topk_idx, MatrixView<const float> topk_weights,
                    std::int64_t first_token, const std::string& label, const PipelineWork& work,
                    MatrixView<float> sum);

 private:
  std::int32_t num_chunks_;
  Matrix<float> rows_, out_;  // [num_rows of a chunk, hidden]
};

}  // namespace c2r
