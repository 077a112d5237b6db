// Runs work on a thread of its own while the calling thread checks for signals and reports.
#include "python/src/released.h"

#include <chrono>
#include <thread>

namespace c2r::python {
namespace {

constexpr std::chrono::milliseconds kBetweenLooks{50};

// Thrown out of a report to end work that has no stop flag. It never leaves run_released().
struct Interrupted : std::exception {};

class SharedProgress final : public Progress {
 public:
  explicit SharedProgress(const std::atomic<bool>& stop) : stop_(stop) {}

  void update(std::int64_t done, std::int64_t total) override {
    {
      const std::lock_guard lock(mutex_);
      if (done_ != done || total_ != total) is_new_ = true;
      done_ = done, total_ = total;
    }
    if (stop_) throw Interrupted();
  }

  // Calls `callback` if the progress has changed. Needs the GIL.
  void report(const nb::object& callback) {
    std::int64_t done = 0, total = 0;
    {
      const std::lock_guard lock(mutex_);
      if (!is_new_) return;
      is_new_ = false;
      done = done_, total = total_;
    }
    if (!callback.is_none()) callback(done, total);
  }

 private:
  const std::atomic<bool>& stop_;
  std::mutex mutex_;
  std::int64_t done_ = 0, total_ = 0;
  bool is_new_ = false;
};

// Runs one piece of work on a thread.
class Worker {
 public:
  Worker(const std::function<void(const Running&)>& work, const Running& running)
      : thread_([this, &work, &running] { run(work, running); }) {}
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;
  ~Worker() { thread_.join(); }

  bool wait_for(std::chrono::milliseconds limit) {
    std::unique_lock lock(mutex_);
    return ended_.wait_for(lock, limit, [&] { return has_ended_; });
  }
  std::exception_ptr failure() const { return failure_; }

 private:
  void run(const std::function<void(const Running&)>& work, const Running& running) {
    try {
      work(running);
    } catch (...) {
      failure_ = std::current_exception();
    }
    {
      const std::lock_guard lock(mutex_);
      has_ended_ = true;
    }
    ended_.notify_one();
  }

  std::mutex mutex_;
  std::condition_variable ended_;
  bool has_ended_ = false;
  std::exception_ptr failure_;
  std::thread thread_;  // last: it uses all of them
};

// Waits without the GIL until `worker` has ended or the limit is over.
bool wait_released(Worker& worker) {
  const nb::gil_scoped_release released;
  return worker.wait_for(kBetweenLooks);
}

}  // namespace

void run_released(const nb::object& progress, const std::function<void(const Running&)>& work) {
  std::atomic<bool> stop = false;
  SharedProgress shared(stop);
  const Running running{shared, stop};
  std::optional<nb::python_error> raised;
  Worker worker(work, running);
  while (!wait_released(worker)) {
    if (raised) continue;
    try {
      if (PyErr_CheckSignals() != 0) throw nb::python_error();
      shared.report(progress);
    } catch (nb::python_error& e) {
      raised.emplace(std::move(e));
      stop = true;
    }
  }
  if (raised) throw nb::python_error(std::move(*raised));
  if (worker.failure()) std::rethrow_exception(worker.failure());
  shared.report(progress);
}

}  // namespace c2r::python
