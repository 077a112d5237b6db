// Interface through which long work reports its progress. The library never prints.
#pragma once

#include <cstdint>
#include <string_view>

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
};

/// Ignores all updates; for callers that show no progress.
class NoProgress final : public Progress {
 public:
  void update(std::int64_t, std::int64_t) override {}
};

}  // namespace c2r
