// One run of a layer through the steps of pipeline_steps.h: when the chunks' rows travel, what is
// polled, and where the time goes. What is done with rows is left to the forward and the backward
// pass.
#pragma once

#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "c2r/dispatch/pipeline.h"
#include "c2r/dispatch/pipeline_steps.h"

namespace c2r {

/// Adds the time from its last call, or its construction, to a duration.
class PhaseWatch {
 public:
  // @param stream whose tasks are waited for before the time is taken; may be null
  explicit PhaseWatch(DeviceStream* stream) : stream_(stream) {}

  void add_to(PipelineTimes::Duration& duration) {
    if (stream_ != nullptr) stream_->record()->synchronize();
    const auto now = std::chrono::steady_clock::now();
    duration += now - std::exchange(last_, now);
  }

 private:
  DeviceStream* stream_;
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

/// What is the same in both passes.
struct PassArguments {
  std::span<Handle> handles;  // of each chunk
  MatrixView<const float> x;  // is dispatched
  MatrixView<float> sum;      // what the combine adds to
  const std::function<void()>& local_work;
};

class PipelinePass {
 public:
  PipelinePass(const PassArguments& with, PipelineTimes& times, PhaseWatch& watch)
      : with_(with), times_(times), watch_(watch) {}
  PipelinePass(const PipelinePass&) = delete;
  PipelinePass& operator=(const PipelinePass&) = delete;
  virtual ~PipelinePass() = default;

  /// Runs all steps. @param pool null: a device computes, and bytes move without being asked
  void run(ThreadPool* pool);

 protected:
  Handle& handle(std::int32_t chunk) const { return with_.handles[std::size_t(chunk)]; }
  std::int64_t hidden() const { return with_.x.cols(); }
  /// Bytes move while `work` computes, and not while a mover's own loops run on the pool: there, a
  /// poll would call the mover in the middle of a call.
  template <class Work>
  void polling(const Work& work) {
    may_poll_ = true;
    work();
    may_poll_ = false;
  }

 private:
  virtual void dispatch_own(std::int32_t chunk) = 0;
  virtual void finish_dispatch(std::int32_t chunk) = 0;
  virtual void compute(std::int32_t chunk, std::span<const std::int64_t> offsets) = 0;
  virtual void start_combine(std::int32_t chunk) = 0;
  virtual void combine_own(std::int32_t chunk) = 0;
  /// @param first the chunk's first token
  virtual void finish_combine(std::int32_t chunk, std::int64_t first, MatrixView<float> sum) = 0;

  std::int32_t num_chunks() const { return static_cast<std::int32_t>(with_.handles.size()); }
  void run_step(const PipelineStep& step);
  void poll();
  void start_dispatch(std::int32_t chunk);
  void finish_combines(std::int32_t last, bool may_wait);

  const PassArguments with_;
  PipelineTimes& times_;
  PhaseWatch& watch_;
  std::int64_t next_token_ = 0, next_sum_ = 0;
  std::int32_t next_dispatch_ = 0;
  std::int32_t awaited_ = 0;       // the chunk after whose arrival the next may leave early
  std::int32_t next_combine_ = 0;  // the first chunk that is not finished
  bool may_poll_ = false;
  std::chrono::steady_clock::time_point next_poll_;
};

}  // namespace c2r
