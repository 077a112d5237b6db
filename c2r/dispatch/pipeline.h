// Runs dispatch, experts and combine of a layer in chunks, and the backward pass of these: one
// chunk travels while another is computed.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "c2r/core/cuda/device_stream.h"
#include "c2r/core/matrix.h"
#include "c2r/core/parallel.h"
#include "c2r/dispatch/dispatch.h"
#include "c2r/dispatch/layer_rows.h"

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

/// What a forward pass keeps for the backward pass of its batch: the handles, and a copy of each
/// row and of its output, 8 x hidden bytes for each choice that this rank computes. The dispatcher,
/// and on a device the stream, must outlive it.
struct KeptBatch {
  std::string label;
  std::int64_t top_k = 0, hidden = 0;
  std::vector<Handle> handles;           // of each chunk
  std::vector<LayerRows> rows, outputs;  // of each chunk, [num_rows, hidden]
};

/// What a backward pass reads and adds to, all in the memory of the rows. Masked choices have
/// weights that are not read, and their gradients stay as they are.
struct LayerGradients {
  MatrixView<const float> dsum;          // [num_tokens, hidden], gradients of `sum`
  MatrixView<const float> topk_weights;  // [num_tokens, top_k], those of the forward pass
  MatrixView<float> dx;                  // [num_tokens, hidden], is added to
  MatrixView<float> dweights;            // [num_tokens, top_k], is added to
};

/// The functions that compute on a rank in a backward pass, as PipelineWork.
struct PipelineBackwardWork {
  /// Writes the gradients of rows [offsets[s], offsets[s + 1]) of each local slot s to `drows`,
  /// given the rows of the forward pass and the gradients of their outputs, and adds to those of
  /// the expert's weights: ExpertCompute::backward(). All are [num_rows, hidden]. Called as
  /// PipelineWork::experts.
  std::function<void(std::span<const std::int64_t> offsets, MatrixView<const float> rows,
                     MatrixView<const float> dout, MatrixView<float> drows)>
      experts;
  /// As PipelineWork::local_work.
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
/// of pipeline_steps.h, forward and backward, for host memory and for a device.
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
  /// @param kept if given, is filled for run_backward(); experts read copies of the rows then
  /// @returns the time of each phase
  /// @throws as Dispatcher::make_handle(); Error(kInvalidArgument) if `x`, `sum` and the choices
  ///         differ in their numbers of tokens or values
  PipelineTimes run(Dispatcher& dispatcher, MatrixView<const float> x,
                    MatrixView<const ExpertId> topk_idx, MatrixView<const float> topk_weights,
                    std::int64_t first_token, const std::string& label, const PipelineWork& work,
                    MatrixView<float> sum, KeptBatch* kept = nullptr);
  /// Goes back through a run(): adds to the gradients of its `x` and of its routing weights.
  /// Collective. Does not depend on the number of chunks, which is that of the run(), but for the
  /// order in which the experts add to the gradients of their weights. May be called again.
  /// @param kept what that run() has kept
  /// @returns the time of each phase
  /// @throws Error(kInvalidArgument) if nothing was kept, or a shape differs; as Exchange::wait()
  /// Cost: dispatch and combine as forward, and 4 bytes for each choice in each direction.
  PipelineTimes run_backward(KeptBatch& kept, const LayerGradients& gradients,
                             const PipelineBackwardWork& work);

 private:
  ThreadPool* pool_ = nullptr;      // null: on a device
  DeviceStream* stream_ = nullptr;  // null: in host memory
  std::int32_t num_chunks_ = 1;
  bool waits_after_steps_ = false;
  LayerRows out_;  // [num_rows of a chunk, hidden]
};

}  // namespace c2r
