// Long work for Python: without the GIL, with progress, and ended by Ctrl-C.
#pragma once

#include <nanobind/nanobind.h>

#include <atomic>
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>

#include "c2r/core/progress.h"

namespace c2r::python {

namespace nb = nanobind;

/// What work is given: where it reports, and what tells it to stop early.
struct Running {
  Progress& progress;
  const std::atomic<bool>& stop;
};

/// Runs `work` on a thread of its own while the calling thread holds no GIL, looks for signals and
/// calls `progress(done, total)` some ten times a second.
///
/// @param progress a callable, or None
/// @throws what `work` throws; what `progress` or a signal's handler raises (KeyboardInterrupt),
///         after `work` has ended: it is told to by Running::stop and by its next report
void run_released(const nb::object& progress, const std::function<void(const Running&)>& work);

/// The same for work with a result.
template <class Work>
auto released(const nb::object& progress, Work&& work) {
  std::optional<decltype(work(std::declval<const Running&>()))> result;
  run_released(progress, [&](const Running& running) { result.emplace(work(running)); });
  return std::move(*result);
}

}  // namespace c2r::python
