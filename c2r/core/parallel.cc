// A pool of threads that take tasks in order from one counter.
#include "c2r/core/parallel.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "c2r/core/error.h"

namespace c2r {
namespace {

using Body = std::function<void(std::int64_t task, int thread)>;

// The tasks of one run() and the error of the lowest that threw. A task is taken before the
// failure of a later one is known, so every task below the lowest failed one is run, and the error
// reported is the one that a single thread would meet first.
class Tasks {
 public:
  Tasks(std::int64_t num_tasks, const Body& body, const std::function<void()>& after_task)
      : num_tasks_(num_tasks), body_(body), after_task_(after_task), failed_task_(num_tasks) {}

  void work(int thread) {
    for (;;) {
      const std::int64_t task = next_.fetch_add(1, std::memory_order_relaxed);
      if (task >= num_tasks_) return;
      try {
        body_(task, thread);
        if (thread == 0 && after_task_) after_task_();
      } catch (...) {
        const std::lock_guard lock(mutex_);
        if (task < failed_task_) {
          failed_task_ = task;
          error_ = std::current_exception();
        }
        next_.store(num_tasks_, std::memory_order_relaxed);
      }
    }
  }

  /// To be called when no thread works on the tasks any more.
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  const std::int64_t num_tasks_;
  const Body& body_;
  const std::function<void()>& after_task_;
  std::atomic<std::int64_t> next_ = 0;
  std::mutex mutex_;
  std::exception_ptr error_;
  std::int64_t failed_task_;  // the lowest task that threw
};

// Marks that a run is in progress.
class RunningMark {
 public:
  explicit RunningMark(bool& is_running) : is_running_(is_running) { is_running_ = true; }
  RunningMark(const RunningMark&) = delete;
  RunningMark& operator=(const RunningMark&) = delete;
  ~RunningMark() { is_running_ = false; }

 private:
  bool& is_running_;
};

}  // namespace

int default_num_threads() {
  cpu_set_t cpus;
  if (sched_getaffinity(0, sizeof cpus, &cpus) == 0) return std::max(1, CPU_COUNT(&cpus));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

struct ThreadPool::State {
  std::mutex mutex;
  std::condition_variable has_work, is_done;
  Tasks* tasks = nullptr;  // of the run() in progress, while there is one to join
  std::int64_t run = 0;    // counts calls of run(), so that a helper joins each at most once
  int num_joined = 0;      // helpers at work on the current run
  bool is_ending = false;
  std::vector<std::jthread> helpers;

  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    {
      const std::lock_guard lock(mutex);
      is_ending = true;
    }
    has_work.notify_all();
    helpers.clear();  // joins
  }

  void help(int thread) {
    std::int64_t last_run = 0;
    for (;;) {
      Tasks* current = nullptr;
      {
        std::unique_lock lock(mutex);
        has_work.wait(lock, [&] { return is_ending || (tasks != nullptr && run != last_run); });
        if (is_ending) return;
        last_run = run;
        current = tasks;
        ++num_joined;
      }
      current->work(thread);
      const std::lock_guard lock(mutex);
      if (--num_joined == 0) is_done.notify_one();
    }
  }
};

ThreadPool::ThreadPool(int num_threads) : num_threads_(num_threads) {
  C2R_REQUIRE(num_threads >= 1, kInvalidArgument, "num_threads is {}, but must be at least 1",
              num_threads);
  if (num_threads == 1) return;
  state_ = std::make_unique<State>();
  for (int thread = 1; thread < num_threads; ++thread) {
    try {
      state_->helpers.emplace_back([state = state_.get(), thread] { state->help(thread); });
    } catch (const std::system_error& e) {
      C2R_THROW(kUnsupported, "cannot start thread {} of {}: {}", thread + 1, num_threads,
                e.code().message());
    }
  }
}

ThreadPool::~ThreadPool() = default;

void ThreadPool::run(std::int64_t num_tasks, const Body& body) {
  if (is_running_) {  // in the action that is called after a task
    for (std::int64_t task = 0; task < num_tasks; ++task) body(task, 0);
    return;
  }
  const RunningMark mark(is_running_);
  Tasks tasks(num_tasks, body, after_task_);
  if (state_ == nullptr || num_tasks <= 1) {
    tasks.work(0);
    return tasks.rethrow();
  }
  {
    const std::lock_guard lock(state_->mutex);
    state_->tasks = &tasks;
    ++state_->run;
  }
  state_->has_work.notify_all();
  tasks.work(0);
  {
    std::unique_lock lock(state_->mutex);
    state_->tasks = nullptr;  // helpers that have not joined yet are skipped
    state_->is_done.wait(lock, [&] { return state_->num_joined == 0; });
  }
  tasks.rethrow();
}

void parallel_for(std::int64_t num_tasks, int num_threads, const Body& body) {
  C2R_REQUIRE(num_threads >= 1, kInvalidArgument, "num_threads is {}, but must be at least 1",
              num_threads);
  const auto wanted = std::clamp<std::int64_t>(num_tasks, 1, num_threads);
  ThreadPool(static_cast<int>(wanted)).run(num_tasks, body);
}

}  // namespace c2r
