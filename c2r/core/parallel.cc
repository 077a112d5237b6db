#include "c2r/core/parallel.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "c2r/core/error.h"

namespace c2r {

int default_num_threads() {
  cpu_set_t cpus;
  if (sched_getaffinity(0, sizeof cpus, &cpus) == 0) return std::max(1, CPU_COUNT(&cpus));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

void parallel_for(std::int64_t num_tasks, int num_threads,
                  const std::function<void(std::int64_t, int)>& body) {
  C2R_REQUIRE(num_threads >= 1, kInvalidArgument, "num_threads is {}, but must be at least 1",
              num_threads);
  std::atomic<std::int64_t> next = 0;
  std::mutex mutex;
  std::exception_ptr error;
  std::int64_t failed_task = num_tasks;  // the lowest task that threw

  // A task is taken before the failure of a later one is known, so every task below the lowest
  // failed one is run, and the error reported is the one that a single thread would meet first.
  const auto work = [&](int thread) {
    for (;;) {
      const std::int64_t task = next.fetch_add(1, std::memory_order_relaxed);
      if (task >= num_tasks) return;
      try {
        body(task, thread);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (task < failed_task) {
          failed_task = task;
          error = std::current_exception();
        }
        next.store(num_tasks, std::memory_order_relaxed);
      }
    }
  };

  std::vector<std::jthread> helpers;
  for (int thread = 1; thread < std::min<std::int64_t>(num_threads, num_tasks); ++thread) {
    helpers.emplace_back(work, thread);
  }
  work(0);
  helpers.clear();  // joins
  if (error) std::rethrow_exception(error);
}

}  // namespace c2r
