// Shows the progress of long work on standard error.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <string_view>

#include "c2r/core/progress.h"

namespace c2r::cli {

/// Draws nothing unless standard error is a terminal and the work takes over a second; then
/// redraws at most ten times a second and wipes the line at the end. Under mpirun, where standard
/// error is no terminal, it prints a line every 5 seconds instead.
class ProgressLine final : public Progress {
 public:
  /// @param units the units of `done`, to print their rate: "tokens"; empty = no rate
  explicit ProgressLine(std::string what, std::string units = {})
      : what_(std::move(what)), units_(std::move(units)) {}
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;
  ~ProgressLine() override;

  void begin(std::string_view step) override;
  void update(std::int64_t done, std::int64_t total) override;

 private:
  using Clock = std::chrono::steady_clock;

  std::string text(std::int64_t done, std::int64_t total) const;
  void wipe();

  std::string what_, units_;
  Clock::time_point start_ = Clock::now(), last_drawn_ = start_;
  bool is_drawn_ = false;
};

/// @returns a ProgressLine on the first rank, and a Progress that prints nothing on the others
std::unique_ptr<Progress> make_progress(bool is_first_rank, std::string what,
                                        std::string units = {});

}  // namespace c2r::cli
