// Runs long work for Python: without the GIL, with progress, and with an end by Ctrl-C.
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

/// What long work receives: the object that it reports to, and the flag that ends it early.
struct Running {
  Progress& progress;
  const std::atomic<bool>& stop;
};

/// Runs `work` on a thread of its own. Meanwhile the calling thread does not hold the GIL, except
/// some ten times a second, to check for signals and to call `progress(done, total)`.
///
/// @param progress a callable, or None
/// @throws what `work` throws
/// @throws what `progress` or the handler of a signal raises (KeyboardInterrupt). Running::stop is
///         set and the next report of `work` throws, and the exception is rethrown when `work` has
///         ended
void run_released(const nb::object& progress, const std::function<void(const Running&)>& work);

/// The same for work with a result.
template <class Work>
auto released(const nb::object& progress, Work&& work) {
  std::optional<decltype(work(std::declval<const Running&>()))> result;
  run_released(progress, [&](const Running& running) { result.emplace(work(running)); });
  return std::move(*result);
}

}  // namespace c2r::python
