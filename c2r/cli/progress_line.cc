// Draws progress on a terminal, with the rate and the remaining time.
#include "c2r/cli/progress_line.h"

#include <fmt/core.h>
#include <unistd.h>

#include <cstdio>
#include <utility>

namespace c2r::cli {

void ProgressLine::update(std::int64_t done, std::int64_t total) {
  using std::chrono::duration;
  const auto now = Clock::now();
  const double elapsed_s = duration<double>(now - start_).count();
  const bool is_due = now - last_drawn_ >= std::chrono::milliseconds(is_drawn_ ? 100 : 1000);
  if (!is_due || ::isatty(STDERR_FILENO) == 0) return;
  last_drawn_ = now;
  is_drawn_ = true;
  const std::string rate =
      units_.empty() ? ""
                     : fmt::format(", {:.1f} {}/s", static_cast<double>(done) / elapsed_s, units_);
  if (total > 0 && done > 0) {
    const double share = static_cast<double>(done) / static_cast<double>(total);
    fmt::print(stderr, "\r\x1b[K{}: {:.0f} %{}, {:.0f} s left", what_, 100 * share, rate,
               elapsed_s * (1 - share) / share);
  } else {
    fmt::print(stderr, "\r\x1b[K{}: {} done{}, {:.0f} s", what_, done, rate, elapsed_s);
  }
  std::fflush(stderr);
}

void ProgressLine::begin(std::string_view step) {
  wipe();
  what_ = step;
  start_ = last_drawn_ = Clock::now();
}

void ProgressLine::wipe() {
  if (is_drawn_) fmt::print(stderr, "\r\x1b[K");
  is_drawn_ = false;
}

ProgressLine::~ProgressLine() {
  wipe();
}

std::unique_ptr<Progress> make_progress(bool is_first_rank, std::string what, std::string units) {
  if (!is_first_rank) return std::make_unique<NoProgress>();
  return std::make_unique<ProgressLine>(std::move(what), std::move(units));
}

}  // namespace c2r::cli
