// The choice of the number of chunks: the cost formula of the header, for 1 to 8 chunks.
#include "c2r/dispatch/chunks.h"

#include <algorithm>

namespace c2r {
namespace {

constexpr double kRowsWorthReading = 8;
constexpr double kMessages_s = 2e-4;
constexpr double kWorthwhile = 0.02;
constexpr std::int32_t kMaxChunks = 8;

}  // namespace

std::int32_t choose_num_chunks(const OneChunkTimes& times) {
  const double reading_s =
      times.computed_s * kRowsWorthReading / std::max(1.0, times.rows_per_expert);
  const auto cost_s = [&](std::int32_t chunks) {
    const double hidden_s = (1 - 1.0 / chunks) * std::min(times.waited_s, times.computed_s);
    return (chunks - 1) * (reading_s + kMessages_s) - hidden_s;
  };
  std::int32_t best = 1;
  for (std::int32_t chunks = 2; chunks <= kMaxChunks; ++chunks) {
    if (cost_s(chunks) < cost_s(best)) best = chunks;
  }
  const double saved_s = cost_s(1) - cost_s(best);
  return saved_s > kWorthwhile * (times.waited_s + times.computed_s) ? best : 1;
}

}  // namespace c2r
