// Runs the steps of a layer on this thread, and polls between the tasks of the pool; or gives the
// steps to the stream of a device.
#include "c2r/dispatch/pipeline.h"

#include <utility>
#include <vector>

#include "c2r/core/error.h"
#include "c2r/dispatch/pipeline_steps.h"

namespace c2r {
namespace {

using Clock = std::chrono::steady_clock;

// A poll costs some system calls; a link of 1 GB/s carries 500 kB in this time, which sockets hold.
constexpr auto kPollInterval = std::chrono::microseconds(500);

// Adds the time from its last call, or its construction, to a duration.
class Stopwatch {
 public:
  // @param stream whose tasks are waited for before the time is taken; may be null
  explicit Stopwatch(DeviceStream* stream) : stream_(stream) {}

  void add_to(PipelineTimes::Duration& duration) {
    if (stream_ != nullptr) stream_->record()->synchronize();
    const auto now = Clock::now();
    duration += now - std::exchange(last_, now);
  }

 private:
  DeviceStream* stream_;
  Clock::time_point last_ = Clock::now();
};

// What one run borrows.
struct RunArguments {
  const PipelineWork& work;
  MatrixView<const float> x;
  MatrixView<float> sum;
  // Takes memory for the results of a chunk, [num_rows, hidden], instead of the chunk before.
  std::function<MatrixView<float>(std::int64_t num_rows, std::int64_t hidden)> make_out;
};

// One run: step after step.
class Run {
 public:
  Run(std::vector<Handle> handles, const RunArguments& with, PipelineTimes& times,
      Stopwatch& stopwatch)
      : handles_(std::move(handles)), with_(with), times_(times), stopwatch_(stopwatch) {}

  void run(const PipelineStep& step);

  // One call moves all exchanges of a transport, but a way through relays goes on only if asked.
  void poll() {
    if (!may_poll_) return;
    const auto now = Clock::now();
    if (now < next_poll_) return;
    next_poll_ = now + kPollInterval;
    for (std::int32_t chunk = next_combine_; chunk < num_chunks(); ++chunk) {
      if (handle(chunk).poll() && chunk == awaited_) start_dispatch(chunk + 1);
    }
  }

 private:
  std::int32_t num_chunks() const { return static_cast<std::int32_t>(handles_.size()); }
  Handle& handle(std::int32_t chunk) { return handles_[std::size_t(chunk)]; }

  // Bytes move while `work` computes, and not while a mover's own loops run on the pool: there, a
  // poll would call the mover in the middle of a call.
  template <class Work>
  void polling(const Work& work) {
    may_poll_ = true;
    work();
    may_poll_ = false;
  }

  // Unless a poll has started it, or there is no such chunk.
  void start_dispatch(std::int32_t chunk) {
    if (chunk != next_dispatch_ || chunk == num_chunks()) return;
    ++next_dispatch_;
    const std::int64_t begin = next_token_;
    next_token_ += handle(chunk).num_tokens();
    handle(chunk).start_dispatch(with_.x.rows(begin, next_token_));
  }

  void dispatch_own(std::int32_t chunk) {
    out_ = with_.make_out(handle(chunk).num_rows(), with_.x.cols());
    rows_ = handle(chunk).dispatch_own();
  }

  void compute(std::span<const std::int64_t> offsets) {
    polling([&] { with_.work.experts(offsets, rows_, out_); });
  }

  // Of the chunks up to `last`: those that are back, or all.
  void finish_combines(std::int32_t last, bool may_wait) {
    for (; next_combine_ <= last; ++next_combine_) {
      Handle& next = handle(next_combine_);
      if (!may_wait && !next.poll()) return;
      next.wait();
      stopwatch_.add_to(times_.wait_combine);
      const std::int64_t begin = std::exchange(next_sum_, next_sum_ + next.num_tokens());
      next.finish_combine(with_.sum.rows(begin, next_sum_));
      stopwatch_.add_to(times_.finish_combine);
    }
  }

  static constexpr std::int32_t kNone = -1;

  std::vector<Handle> handles_;
  const RunArguments with_;
  PipelineTimes& times_;
  Stopwatch& stopwatch_;
  MatrixView<const float> results() const { return {out_.data(), out_.rows(), out_.cols()}; }

  GatheredRows rows_;      // of the chunk that is computed
  MatrixView<float> out_;  // the same
  std::int64_t next_token_ = 0, next_sum_ = 0;
  std::int32_t next_dispatch_ = 0;
  std::int32_t awaited_ = 0;       // the chunk after whose arrival the next may leave early
  std::int32_t next_combine_ = 0;  // the first chunk that is not finished
  bool may_poll_ = false;
  Clock::time_point next_poll_;
};

void Run::run(const PipelineStep& step) {
  Handle& current = handle(step.chunk);
  switch (step.kind) {
    case StepKind::kStartDispatch:
      start_dispatch(step.chunk);
      return stopwatch_.add_to(times_.start_dispatch);
    case StepKind::kLocalWork:
      if (with_.work.local_work) polling(with_.work.local_work);
      return stopwatch_.add_to(times_.local_work);
    case StepKind::kDispatchOwn:
      dispatch_own(step.chunk);
      return stopwatch_.add_to(times_.finish_dispatch);
    case StepKind::kComputeOwn:
      compute(current.own_offsets());
      return stopwatch_.add_to(times_.experts);
    case StepKind::kWaitDispatch:
      current.wait();
      awaited_ = kNone;
      return stopwatch_.add_to(times_.wait_dispatch);
    case StepKind::kFinishDispatch:
      rows_ = current.finish_dispatch();
      return stopwatch_.add_to(times_.finish_dispatch);
    case StepKind::kComputeOthers:
      compute(current.offsets());
      return stopwatch_.add_to(times_.experts);
    case StepKind::kStartCombine:
      current.start_combine(results());
      awaited_ = step.chunk + 1;
      return stopwatch_.add_to(times_.start_combine);
    case StepKind::kCombineOwn:
      current.combine_own(results());
      return stopwatch_.add_to(times_.start_combine);
    case StepKind::kFinishCombinesIfBack:
      return finish_combines(step.chunk, false);
    case StepKind::kFinishCombines:
      return finish_combines(step.chunk, true);
  }
}

// Lets bytes move while a pool works.
class Polling {
 public:
  // @param pool null: a device computes, and bytes move without being asked
  Polling(ThreadPool* pool, Run& run) : pool_(pool) {
    if (pool_ != nullptr) pool_->set_after_task([&run] { run.poll(); });
  }
  Polling(const Polling&) = delete;
  Polling& operator=(const Polling&) = delete;
  ~Polling() {
    if (pool_ != nullptr) pool_->set_after_task({});
  }

 private:
  ThreadPool* pool_;
};

}  // namespace

PipelineTimes& PipelineTimes::operator+=(const PipelineTimes& other) {
  for (const auto phase : kPipelinePhases) this->*phase += other.*phase;
  return *this;
}

Pipeline::Pipeline(ThreadPool& pool, std::int32_t num_chunks) : pool_(&pool) {
  set_num_chunks(num_chunks);
}

Pipeline::Pipeline(DeviceStream& compute, std::int32_t num_chunks) : stream_(&compute) {
  set_num_chunks(num_chunks);
}

// Tasks that still use the results of the chunk before come first in the stream.
MatrixView<float> Pipeline::make_out(std::int64_t num_rows, std::int64_t hidden) {
  if (stream_ == nullptr) {
    out_.reshape(num_rows, hidden);
    return out_;
  }
  device_out_ = DeviceBuffer(*stream_, num_rows * hidden * std::int64_t{sizeof(float)});
  return {reinterpret_cast<float*>(device_out_.data()), num_rows, hidden};
}

void Pipeline::set_num_chunks(std::int32_t num_chunks) {
  C2R_REQUIRE(num_chunks > 0, kInvalidArgument, "num_chunks is {}, but must be positive",
              num_chunks);
  num_chunks_ = num_chunks;
}

PipelineTimes Pipeline::run(Dispatcher& dispatcher, MatrixView<const float> x,
                            MatrixView<const ExpertId> topk_idx,
                            MatrixView<const float> topk_weights, std::int64_t first_token,
                            const std::string& label, const PipelineWork& work,
                            MatrixView<float> sum) {
  C2R_REQUIRE(x.rows() == topk_idx.rows() && sum.rows() == x.rows() && sum.cols() == x.cols(),
              kInvalidArgument,
              "{}: x is {}x{} and sum is {}x{}, but there are choices of {} tokens", label,
              x.rows(), x.cols(), sum.rows(), sum.cols(), topk_idx.rows());
  PipelineTimes times;
  Stopwatch stopwatch(waits_after_steps_ ? stream_ : nullptr);
  Run run(dispatcher.make_handles(topk_idx, topk_weights, first_token, num_chunks_, label),
          {.work = work,
           .x = x,
           .sum = sum,
           .make_out = [this](auto num_rows, auto hidden) { return make_out(num_rows, hidden); }},
          times, stopwatch);
  stopwatch.add_to(times.handles);
  const Polling polling(pool_, run);
  for (const PipelineStep& step : pipeline_steps(num_chunks_)) run.run(step);
  return times;
}

}  // namespace c2r
