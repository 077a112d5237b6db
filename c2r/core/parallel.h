// Threads for independent pieces of work.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

namespace c2r {

/// What `--threads 0` means: the processors that this process may run on, at least 1.
int default_num_threads();

/// Threads that are kept between calls, for work that comes in many short pieces. Used by one
/// thread at a time; run() must not be called from a task of the same pool.
///
/// The action of set_after_task() is no task: it may call run(), which then runs all its tasks on
/// the calling thread, as the others are busy, and calls no action after them.
class ThreadPool {
 public:
  /// @throws Error(kInvalidArgument) if `num_threads` < 1, Error(kUnsupported) if one cannot start
  explicit ThreadPool(int num_threads);
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool();

  int num_threads() const { return num_threads_; }

  /// As parallel_for(), on this pool's threads.
  /// Cost: wakes the other threads, some microseconds; nothing for a single task or thread.
  void run(std::int64_t num_tasks, const std::function<void(std::int64_t task, int thread)>& body);

  /// From now on the thread that calls run() calls `action` after each of its tasks, as if it were
  /// their end; empty: nothing. For what must not wait until all tasks are done.
  void set_after_task(std::function<void()> action) { after_task_ = std::move(action); }

 private:
  struct State;
  int num_threads_;
  bool is_running_ = false;  // run(), of the thread that calls it
  std::function<void()> after_task_;
  std::unique_ptr<State> state_;  // null for one thread
};

/// Calls `body(task, thread)` once for each task in [0, num_tasks), on at most `num_threads`
/// threads, the calling one among them; `thread` is in [0, num_threads) and names the thread's
/// own scratch space. Tasks are handed out in order. If bodies throw, the remaining tasks are not
/// started and the exception of the lowest task that threw is rethrown here, so that an error
/// does not depend on the number of threads.
///
/// @throws as ThreadPool()
///
/// Cost: starts min(num_threads, num_tasks) - 1 threads, some 20 us each.
void parallel_for(std::int64_t num_tasks, int num_threads,
                  const std::function<void(std::int64_t task, int thread)>& body);

}  // namespace c2r
