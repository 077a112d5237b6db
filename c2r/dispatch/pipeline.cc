#include "c2r/dispatch/pipeline.h"

#include <utility>
#include <vector>

#include "c2r/core/error.h"

namespace c2r {
namespace {

using Clock = std::chrono::steady_clock;

// A poll costs some system calls; a link of 1 GB/s carries 500 kB meanwhile, which sockets hold.
constexpr auto kPollInterval = std::chrono::microseconds(500);

// Adds the time from its last call, or its construction, to a duration.
class Lap {
 public:
  void add_to(PipelineTimes::Duration& duration) {
    const auto now = Clock::now();
    duration += now - std::exchange(last_, now);
  }

 private:
  Clock::time_point last_ = Clock::now();
};

// One run: chunk after chunk.
class Run {
 public:
  Run(std::vector<Handle> handles, const PipelineWork& work, MatrixView<const float> x,
      MatrixView<float> sum, PipelineTimes& times, Lap& lap)
      : handles_(std::move(handles)), work_(work), x_(x), sum_(sum), times_(times), lap_(lap) {}

  void begin() {
    start_dispatch();
    lap_.add_to(times_.start_dispatch);
    if (work_.meanwhile) work_.meanwhile();
    lap_.add_to(times_.meanwhile);
  }

  // Its dispatch was started. @param rows,out are given their size
  void run_chunk(std::int32_t chunk, Matrix<float>& rows, Matrix<float>& out) {
    Handle& current = handle(chunk);
    rows.reshape(current.num_rows(), x_.cols());
    out.reshape(rows.rows(), x_.cols());
    const auto compute = [&](std::span<const std::int64_t> offsets) {
      work_.experts(offsets, rows, out);
      lap_.add_to(times_.experts);
    };
    const bool is_last = chunk + 1 == num_chunks();
    current.dispatch_own(rows);
    lap_.add_to(times_.finish_dispatch);
    if (!is_last) compute(current.own_offsets());
    finish_dispatch(chunk, rows);
    compute(current.offsets());
    current.start_combine(out);
    awaited_ = chunk + 1;
    lap_.add_to(times_.start_combine);
    if (is_last) compute(current.own_offsets());
    current.combine_own(out);
    lap_.add_to(times_.start_combine);
    finish_combines(chunk, is_last);
  }

  // One call moves all exchanges of a transport, but a way through relays goes on only if asked.
  void poll() {
    const auto now = Clock::now();
    if (now < next_poll_) return;
    next_poll_ = now + kPollInterval;
    for (std::int32_t chunk = next_combine_; chunk < num_chunks(); ++chunk) {
      if (handle(chunk).poll() && chunk == awaited_) start_dispatch_after(chunk);
    }
  }

 private:
  std::int32_t num_chunks() const { return static_cast<std::int32_t>(handles_.size()); }
  Handle& handle(std::int32_t chunk) { return handles_[std::size_t(chunk)]; }

  void start_dispatch() {
    const std::int64_t begin = next_token_;
    Handle& next = handle(next_dispatch_++);
    next_token_ += next.num_tokens();
    next.start_dispatch(x_.rows(begin, next_token_));
  }

  void start_dispatch_after(std::int32_t chunk) {
    if (next_dispatch_ == chunk + 1 && next_dispatch_ < num_chunks()) start_dispatch();
  }

  // The next chunk leaves before this one's rows are handed out.
  void finish_dispatch(std::int32_t chunk, MatrixView<float> rows) {
    handle(chunk).wait();
    lap_.add_to(times_.wait_dispatch);
    start_dispatch_after(chunk);
    awaited_ = kNone;
    lap_.add_to(times_.start_dispatch);
    handle(chunk).finish_dispatch(rows);
    lap_.add_to(times_.finish_dispatch);
  }

  // Of the chunks up to `last`: those that are back, or all.
  void finish_combines(std::int32_t last, bool may_wait) {
    for (; next_combine_ <= last; ++next_combine_) {
      Handle& next = handle(next_combine_);
      if (!may_wait && !next.poll()) return;
      next.wait();
      lap_.add_to(times_.wait_combine);
      const std::int64_t begin = std::exchange(next_sum_, next_sum_ + next.num_tokens());
      next.finish_combine(sum_.rows(begin, next_sum_));
      lap_.add_to(times_.finish_combine);
    }
  }

  static constexpr std::int32_t kNone = -1;

  std::vector<Handle> handles_;
  const PipelineWork& work_;
  MatrixView<const float> x_;
  MatrixView<float> sum_;
  PipelineTimes& times_;
  Lap& lap_;
  std::int64_t next_token_ = 0, next_sum_ = 0;
  std::int32_t next_dispatch_ = 0;
  // The chunk whose rows may arrive any time, after which the next may leave: all ranks start the
  // dispatch of chunk n + 1 after the combine of n - 1 and before that of n.
  std::int32_t awaited_ = 0;
  std::int32_t next_combine_ = 0;  // the first chunk that is not finished
  Clock::time_point next_poll_;
};

// Lets bytes move while a pool works.
class Polling {
 public:
  Polling(ThreadPool& pool, Run& run) : pool_(pool) {
    pool.set_after_task([&run] { run.poll(); });
  }
  Polling(const Polling&) = delete;
  Polling& operator=(const Polling&) = delete;
  ~Polling() { pool_.set_after_task({}); }

 private:
  ThreadPool& pool_;
};

}  // namespace

PipelineTimes& PipelineTimes::operator+=(const PipelineTimes& other) {
  for (const auto phase : kPipelinePhases) this->*phase += other.*phase;
  return *this;
}

Pipeline::Pipeline(ThreadPool& pool, std::int32_t num_chunks) : pool_(pool) {
  set_num_chunks(num_chunks);
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
  Lap lap;
  Run run(dispatcher.make_handles(topk_idx, topk_weights, first_token, num_chunks_, label), work, x,
          sum, times, lap);
  lap.add_to(times.handles);
  const Polling polling(pool_, run);
  run.begin();
  for (std::int32_t chunk = 0; chunk < num_chunks_; ++chunk) run.run_chunk(chunk, rows_, out_);
  return times;
}

}  // namespace c2r
