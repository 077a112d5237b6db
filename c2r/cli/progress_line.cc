// Shows progress on a terminal or under mpirun, with the rate and the remaining time.
#include "c2r/cli/progress_line.h"

#include <fmt/core.h>
#include <unistd.h>

#include <cstdio>
#include <utility>

#include "c2r/cli/ranks.h"

namespace c2r::cli {

namespace {

constexpr auto kFirstDrawing = std::chrono::milliseconds(1000);
constexpr auto kDrawing = std::chrono::milliseconds(100);
constexpr auto kPrintedLine = std::chrono::seconds(5);

}  // namespace

void ProgressLine::update(std::int64_t done, std::int64_t total) {
  const auto now = Clock::now();
  if (::isatty(STDERR_FILENO) == 0) {
    if (now - last_drawn_ < kPrintedLine || !is_under_mpirun()) return;
    fmt::print(stderr, "{}\n", text(done, total));
  } else {
    if (now - last_drawn_ < (is_drawn_ ? kDrawing : kFirstDrawing)) return;
    fmt::print(stderr, "\r\x1b[K{}", text(done, total));
    is_drawn_ = true;
  }
  last_drawn_ = now;
  std::fflush(stderr);
}

std::string ProgressLine::text(std::int64_t done, std::int64_t total) const {
  const double elapsed_s = std::chrono::duration<double>(Clock::now() - start_).count();
  const std::string rate =
      units_.empty() ? ""
                     : fmt::format(", {:.1f} {}/s", static_cast<double>(done) / elapsed_s, units_);
  if (total <= 0 || done <= 0) {
    return fmt::format("{}: {} done{}, {:.0f} s", what_, done, rate, elapsed_s);
  }
  const double share = static_cast<double>(done) / static_cast<double>(total);
  return fmt::format("{}: {:.0f} %{}, {:.0f} s left", what_, 100 * share, rate,
                     elapsed_s * (1 - share) / share);
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
