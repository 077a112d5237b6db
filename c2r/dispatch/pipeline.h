// Dispatch, experts and combine of a layer in chunks: one travels while another is computed.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "c2r/core/matrix.h"
#include "c2r/core/parallel.h"
#include "c2r/dispatch/dispatch.h"

namespace c2r {

/// What a rank computes. Neither function knows of other ranks. Bytes move whenever a task of the
/// pipeline's pool is done, so tasks should take about a millisecond.
struct PipelineWork {
  /// Gives each row its result: rows of local slot s are [offsets[s], offsets[s + 1]) of `rows` and
  /// `out`, both [num_rows, hidden]; other rows are none of its business. Called twice for each
  /// chunk: for what comes from other ranks and for what does not, also if that is nothing.
  std::function<void(std::span<const std::int64_t> offsets, MatrixView<const float> rows,
                     MatrixView<float> out)>
      experts;
  /// What needs no other rank, such as a shared expert; runs while the first chunk travels. Empty:
  /// nothing.
  std::function<void()> local_work;
};

/// Where the time of one run went, on this rank. Together they are all of it.
struct PipelineTimes {
  using Duration = std::chrono::steady_clock::duration;
  Duration handles{};          // who sends what to whom
  Duration start_dispatch{};   // rows into send buffers
  Duration local_work{};       // PipelineWork::local_work
  Duration wait_dispatch{};    // for rows that have not arrived
  Duration finish_dispatch{};  // rows to their experts
  Duration experts{};          // PipelineWork::experts
  Duration start_combine{};    // weighted sums into send buffers
  Duration wait_combine{};     // for results that have not arrived
  Duration finish_combine{};   // results to their tokens

  PipelineTimes& operator+=(const PipelineTimes& other);
};

/// The parts of PipelineTimes, in the order of a run.
inline constexpr PipelineTimes::Duration PipelineTimes::*kPipelinePhases[] = {
    &PipelineTimes::handles,       &PipelineTimes::start_dispatch,  &PipelineTimes::local_work,
    &PipelineTimes::wait_dispatch, &PipelineTimes::finish_dispatch, &PipelineTimes::experts,
    &PipelineTimes::start_combine, &PipelineTimes::wait_combine,    &PipelineTimes::finish_combine};

/// Runs layers on the thread that calls it, and keeps the memory between calls. The order is that
/// of pipeline_steps.h; the next chunk leaves as soon as the rows of the one before have arrived.
class Pipeline {
 public:
  /// @param pool what PipelineWork runs on; must outlive this object
  /// @param num_chunks the same on every rank; 1: nothing overlaps but local work and own rows
  /// @throws Error(kInvalidArgument) if `num_chunks` is not positive
  Pipeline(ThreadPool& pool, std::int32_t num_chunks);

  std::int32_t num_chunks() const { return num_chunks_; }
  /// Of later runs. @throws as the constructor
  void set_num_chunks(std::int32_t num_chunks);

  /// Adds each token's weighted sum of the layer's expert outputs to its row of `sum`. Collective.
  /// The result does not depend on the number of chunks.
  /// @param x,sum [num_tokens, hidden]; the rest as Dispatcher::make_handle()
  PipelineTimes run(Dispatcher& dispatcher, MatrixView<const float> x,
                    MatrixView<const ExpertId> topk_idx, MatrixView<const float> topk_weights,
                    std::int64_t first_token, const std::string& label, const PipelineWork& work,
                    MatrixView<float> sum);

 private:
  ThreadPool& pool_;
  std::int32_t num_chunks_ = 1;
  Matrix<float> rows_, out_;  // [num_rows of a chunk, hidden]
};

}  // namespace c2r
