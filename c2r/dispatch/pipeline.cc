#include "c2r/dispatch/pipeline.h"

#include <utility>
#include <vector>

#include "c2r/core/error.h"

namespace c2r {
namespace {

// Adds the time from its last call, or its construction, to a duration.
class Lap {
 public:
  void add_to(PipelineTimes::Duration& duration) {
    const auto now = std::chrono::steady_clock::now();
    duration += now - std::exchange(last_, now);
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

// One run: chunk after chunk.
class Run {
 public:
  Run(std::vector<Handle> handles, MatrixView<const float> x, MatrixView<float> sum,
      PipelineTimes& times, Lap& lap)
      : handles_(std::move(handles)), x_(x), sum_(sum), times_(times), lap_(lap) {}

  std::int32_t num_chunks() const { return static_cast<std::int32_t>(handles_.size()); }
  const Handle& handle(std::int32_t chunk) const { return handles_[std::size_t(chunk)]; }

  void start_dispatch(std::int32_t chunk) {
    const std::int64_t begin = next_token_;
    next_token_ += handle(chunk).num_tokens();
    handles_[std::size_t(chunk)].start_dispatch(x_.rows(begin, next_token_));
    lap_.add_to(times_.start_dispatch);
  }

  // The next chunk leaves before this one's rows are handed out.
  void finish_dispatch(std::int32_t chunk, MatrixView<float> rows) {
    handles_[std::size_t(chunk)].wait();
    lap_.add_to(times_.wait_dispatch);
    if (chunk + 1 < num_chunks()) start_dispatch(chunk + 1);
    handles_[std::size_t(chunk)].finish_dispatch(rows);
    lap_.add_to(times_.finish_dispatch);
  }

  void start_combine(std::int32_t chunk, MatrixView<const float> out) {
    handles_[std::size_t(chunk)].start_combine(out);
    lap_.add_to(times_.start_combine);
  }

  // Of the chunks before `end`: those that are back, or all.
  void finish_combines(std::int32_t end, bool may_wait) {
    for (; next_combine_ < end; ++next_combine_) {
      Handle& handle = handles_[std::size_t(next_combine_)];
      if (!may_wait && !handle.poll()) return;
      handle.wait();
      lap_.add_to(times_.wait_combine);
      const std::int64_t begin = std::exchange(next_sum_, next_sum_ + handle.num_tokens());
      handle.finish_combine(sum_.rows(begin, next_sum_));
      lap_.add_to(times_.finish_combine);
    }
  }

  // One call moves all exchanges of a transport, but a way through relays goes on only if asked.
  void poll() {
    for (std::int32_t chunk = next_combine_; chunk < num_chunks(); ++chunk) {
      (void)handles_[std::size_t(chunk)].poll();
    }
  }

 private:
  std::vector<Handle> handles_;
  MatrixView<const float> x_;
  MatrixView<float> sum_;
  PipelineTimes& times_;
  Lap& lap_;
  std::int64_t next_token_ = 0, next_sum_ = 0;
  std::int32_t next_combine_ = 0;  // the first chunk that is not finished
};

}  // namespace

Pipeline::Pipeline(std::int32_t num_chunks) : num_chunks_(num_chunks) {
  C2R_REQUIRE(num_chunks > 0, kInvalidArgument, "num_chunks is {}, but must be positive",
              num_chunks);
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
  Lap lap;
  Run run(dispatcher.make_handles(topk_idx, topk_weights, first_token, num_chunks_, label), x, sum,
          times, lap);
  lap.add_to(times.handles);
  const Poll poll = [&] { run.poll(); };
  run.start_dispatch(0);
  if (work.meanwhile) work.meanwhile(poll);
  lap.add_to(times.meanwhile);
  for (std::int32_t chunk = 0; chunk < num_chunks_; ++chunk) {
    rows_.reshape(run.handle(chunk).num_rows(), x.cols());
    out_.reshape(rows_.rows(), x.cols());
    run.finish_dispatch(chunk, rows_);
    work.experts(run.handle(chunk).offsets(), rows_, out_, poll);
    lap.add_to(times.experts);
    run.start_combine(chunk, out_);
    run.finish_combines(chunk, false);
  }
  run.finish_combines(num_chunks_, true);
  return times;
}

}  // namespace c2r
