// Runs dispatch, experts and combine of a layer in chunks: one chunk travels while another is
// computed.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "c2r/core/cuda/device_stream.h"
#include "c2r/core/matrix.h"
#include "c2r/core/parallel.h"
#include "c2r/dispatch/dispatch.h"

namespace c2r {

/// The functions that compute on a rank. Neither knows of other ranks. Bytes move whenever a task
/// of the pipeline's pool is done, so tasks should take about a millisecond.
struct PipelineWork {
  /// Writes the result of each row to `out`. Rows of local slot s are [offsets[s], offsets[s + 1])
  /// of `rows` and `out`, both [num_rows, hidden]; other rows must not be touched. `rows` lie where
  /// they were received, so an expert gathers them (GroupedGemm) or reads each with read_row().
  /// Called twice for each chunk: for rows from other ranks and for own rows, also if there are
  /// none.
  std::function<void(std::span<const std::int64_t> offsets, const GatheredRows& rows,
                     MatrixView<float> out)>
      experts;
  /// Computes what needs no other rank, such as a shared expert, while the first chunk travels. May
  /// be empty.
  std::function<void()> local_work;
};

/// The time of one run on this rank, by phase. The phases together are the whole run.
struct PipelineTimes {
  using Duration = std::chrono::steady_clock::duration;
  Duration handles{};          // making the handles: who sends which row to whom
  Duration start_dispatch{};   // rows into send buffers
  Duration local_work{};       // PipelineWork::local_work
  Duration wait_dispatch{};    // for rows that have not arrived
  Duration finish_dispatch{};  // showing received rows to the experts
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
/// of pipeline_steps.h, for host memory and for a device.
class Pipeline {
 public:
  /// Makes a pipeline for rows in host memory. It polls after the tasks of `pool`, so that the next
  /// chunk leaves as soon as the rows of the one before have arrived.
  /// @param pool the pool on which PipelineWork computes; must outlive this object
  /// @param num_chunks the same on every rank; with 1, only local work and own rows overlap with
  ///        the exchange
  /// @throws Error(kInvalidArgument) if `num_chunks` is not positive
  Pipeline(ThreadPool& pool, std::int32_t num_chunks);
  /// Makes a pipeline for rows in the memory of a device: `x`, `sum` and what PipelineWork is given
  /// are memory of the device, and the steps are tasks of its stream. run() returns before they
  /// have run, and PipelineTimes say how long the host took to enqueue them, or waited for others.
  /// @param compute the stream of the dispatcher's mover, on which PipelineWork computes; must
  ///        outlive this object
  /// @throws as above
  Pipeline(DeviceStream& compute, std::int32_t num_chunks);

  std::int32_t num_chunks() const { return num_chunks_; }
  /// Sets the number of chunks of later runs.
  /// @throws as the constructor
  void set_num_chunks(std::int32_t num_chunks);
  /// Sets whether later runs on a device wait for it after each step, so that PipelineTimes are its
  /// times. Serves to measure: nothing overlaps then.
  void set_waits_after_steps(bool waits) { waits_after_steps_ = waits; }

  /// Adds each token's weighted sum of the layer's expert outputs to its row of `sum`. Collective.
  /// The result does not depend on the number of chunks.
  /// @param x,sum [num_tokens, hidden]; the other arguments are those of Dispatcher::make_handle()
  /// @returns the time of each phase
  /// @throws as Dispatcher::make_handle(); Error(kInvalidArgument) if `x`, `sum` and the choices
  ///         differ in their numbers of tokens or values
  PipelineTimes run(Dispatcher& dispatcher, MatrixView<const float> x,
                    MatrixView<const ExpertId> topk_idx, MatrixView<const float> topk_weights,
                    std::int64_t first_token, const std::string& label, const PipelineWork& work,
                    MatrixView<float> sum);

 private:
  MatrixView<float> make_out(std::int64_t num_rows, std::int64_t hidden);

  ThreadPool* pool_ = nullptr;      // null: on a device
  DeviceStream* stream_ = nullptr;  // null: in host memory
  std::int32_t num_chunks_ = 1;
  bool waits_after_steps_ = false;
  Matrix<float> out_;        // [num_rows of a chunk, hidden]
  DeviceBuffer device_out_;  // the same, on a device
};

}  // namespace c2r
