// Runs the steps of a layer on this thread, and polls between the tasks of the pool; or gives the
// steps to the stream of a device.
#include "c2r/dispatch/pipeline_run_internal.h"

namespace c2r {
namespace {

// A poll costs some system calls; a link of 1 GB/s carries 500 kB in this time, which sockets hold.
constexpr auto kPollInterval = std::chrono::microseconds(500);

constexpr std::int32_t kNoChunk = -1;

// Lets bytes move while a pool works.
class PollsAfterTasks {
 public:
  PollsAfterTasks(ThreadPool* pool, std::function<void()> poll) : pool_(pool) {
    if (pool_ != nullptr) pool_->set_after_task(std::move(poll));
  }
  PollsAfterTasks(const PollsAfterTasks&) = delete;
  PollsAfterTasks& operator=(const PollsAfterTasks&) = delete;
  ~PollsAfterTasks() {
    if (pool_ != nullptr) pool_->set_after_task({});
  }

 private:
  ThreadPool* pool_;
};

}  // namespace

void PipelinePass::run(ThreadPool* pool) {
  const PollsAfterTasks polls(pool, [this] { poll(); });
  for (const PipelineStep& step : pipeline_steps(num_chunks())) run_step(step);
}

// One call moves all exchanges of a transport, but a way through relays goes on only if asked.
void PipelinePass::poll() {
  if (!may_poll_) return;
  const auto now = std::chrono::steady_clock::now();
  if (now < next_poll_) return;
  next_poll_ = now + kPollInterval;
  for (std::int32_t chunk = next_combine_; chunk < num_chunks(); ++chunk) {
    if (handle(chunk).poll() && chunk == awaited_) start_dispatch(chunk + 1);
  }
}

// Unless a poll has started it, or there is no such chunk.
void PipelinePass::start_dispatch(std::int32_t chunk) {
  if (chunk != next_dispatch_ || chunk == num_chunks()) return;
  ++next_dispatch_;
  const std::int64_t begin = next_token_;
  next_token_ += handle(chunk).num_tokens();
  handle(chunk).start_dispatch(with_.x.rows(begin, next_token_));
}

// Of the chunks up to `last`: those that are back, or all.
void PipelinePass::finish_combines(std::int32_t last, bool may_wait) {
  for (; next_combine_ <= last; ++next_combine_) {
    Handle& next = handle(next_combine_);
    if (!may_wait && !next.poll()) return;
    next.wait();
    watch_.add_to(times_.wait_combine);
    const std::int64_t begin = std::exchange(next_sum_, next_sum_ + next.num_tokens());
    finish_combine(next_combine_, begin, with_.sum.rows(begin, next_sum_));
    watch_.add_to(times_.finish_combine);
  }
}

void PipelinePass::run_step(const PipelineStep& step) {
  Handle& current = handle(step.chunk);
  switch (step.kind) {
    case StepKind::kStartDispatch:
      start_dispatch(step.chunk);
      return watch_.add_to(times_.start_dispatch);
    case StepKind::kLocalWork:
      if (with_.local_work) polling(with_.local_work);
      return watch_.add_to(times_.local_work);
    case StepKind::kDispatchOwn:
      dispatch_own(step.chunk);
      return watch_.add_to(times_.finish_dispatch);
    case StepKind::kComputeOwn:
      compute(step.chunk, current.own_offsets());
      return watch_.add_to(times_.experts);
    case StepKind::kWaitDispatch:
      current.wait();
      awaited_ = kNoChunk;
      return watch_.add_to(times_.wait_dispatch);
    case StepKind::kFinishDispatch:
      finish_dispatch(step.chunk);
      return watch_.add_to(times_.finish_dispatch);
    case StepKind::kComputeOthers:
      compute(step.chunk, current.offsets());
      return watch_.add_to(times_.experts);
    case StepKind::kStartCombine:
      start_combine(step.chunk);
      awaited_ = step.chunk + 1;
      return watch_.add_to(times_.start_combine);
    case StepKind::kCombineOwn:
      combine_own(step.chunk);
      return watch_.add_to(times_.start_combine);
    case StepKind::kFinishCombinesIfBack:
      return finish_combines(step.chunk, false);
    case StepKind::kFinishCombines:
      return finish_combines(step.chunk, true);
  }
}

}  // namespace c2r
