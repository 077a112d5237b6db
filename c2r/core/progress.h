// Interface through which long work reports its progress and is ended. The library never prints.
#pragma once

#include <cstdint>
#include <string_view>

#include "c2r/core/error.h"

namespace c2r {

class Progress {
 public:
  virtual ~Progress() = default;

  /// A step of the work begins, such as "placing experts"; update() counts its units from now on.
  /// Only work of several steps calls this.
  virtual void begin(std::string_view /*step*/) {}

  /// `done` of `total` units are finished; `total` 0 means that it is not known. Called from one
  /// thread at a time, at most some thousand times in all.
  virtual void update(std::int64_t done, std::int64_t total) = 0;

  /// @returns whether the work is to end early. Long counts ask this every millisecond or so, from
  ///          any thread; most work does not ask.
  virtual bool is_stopped() const { return false; }
  /// @throws Error(kTimeout) if is_stopped()
  void throw_if_stopped() const {
    if (is_stopped()) C2R_THROW(kTimeout, "stopped before everything was counted");
  }
};

/// Ignores all updates; for callers that show no progress.
class NoProgress final : public Progress {
 public:
  void update(std::int64_t, std::int64_t) override {}
};

}  // namespace c2r
