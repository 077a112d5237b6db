// Ends what is counted after a search when its time is over, and says what was left out.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/core/progress.h"

namespace c2r {

/// Passes progress on to another Progress, until a time or a flag stops the work.
class LimitedProgress final : public Progress {
 public:
  using Clock = std::chrono::steady_clock;

  /// For what is counted after a search. It has until `seconds` after `started`, and one second in
  /// any case. If the user stopped the search, it has one second; else it ends when the user stops
  /// it.
  /// @param shown must outlive this object, and so must `stop`, which may be null
  LimitedProgress(Progress& shown, Clock::time_point started, std::optional<double> seconds,
                  const std::atomic<bool>* stop)
      : shown_(shown) {
    constexpr double kLeastSeconds = 1, kMostSeconds = 1e9;
    const bool was_stopped = stop != nullptr && *stop;
    if (!was_stopped) stop_ = stop;
    if (!was_stopped && !seconds) return;
    deadline_ = after(Clock::now(), kLeastSeconds);
    if (seconds && !was_stopped) {
      deadline_ = std::max(*deadline_, after(started, std::min(*seconds, kMostSeconds)));
    }
  }

  void begin(std::string_view step) override { shown_.begin(step); }
  void update(std::int64_t done, std::int64_t total) override { shown_.update(done, total); }
  std::optional<Clock::time_point> deadline() const { return deadline_; }
  bool is_stopped() const override {
    return (stop_ != nullptr && *stop_) || (deadline_ && Clock::now() >= *deadline_);
  }

 private:
  static Clock::time_point after(Clock::time_point start, double seconds) {
    return start +
           std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  }

  Progress& shown_;
  const std::atomic<bool>* stop_ = nullptr;
  std::optional<Clock::time_point> deadline_;
};

/// Counts parts of a result one after the other, and remembers which were left out.
class TimeLeft {
 public:
  explicit TimeLeft(LimitedProgress& progress) : progress_(progress) {}

  LimitedProgress& progress() const { return progress_; }

  /// Runs a part that counts with progress(), unless the time is over before it ends.
  void run(std::string_view name, const std::function<void()>& part) {
    try {
      progress_.throw_if_stopped();
      part();
    } catch (const Error& e) {
      if (e.code() != ErrorCode::kTimeout) throw;
      left_out_.emplace_back(name);
    }
  }

  /// @returns the names of the parts that were not done, in their order
  const std::vector<std::string>& left_out() const { return left_out_; }

 private:
  LimitedProgress& progress_;
  std::vector<std::string> left_out_;
};

}  // namespace c2r
