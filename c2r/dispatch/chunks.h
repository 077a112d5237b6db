// Chooses the number of chunks that a batch is cut into.
#pragma once

#include <cstdint>

namespace c2r {

/// The time of a layer in one chunk; the same values on every rank, so that all choose the same.
struct OneChunkTimes {
  // Time spent waiting for rows and results, of the rank that waited least: the others waited
  // longer for that rank, and not for a link.
  double waited_s = 0;
  double computed_s = 0;       // in experts, of the slowest rank
  double rows_per_expert = 0;  // on average
};

/// The number of chunks C with the least time. All but one of them can travel while another is
/// computed, so the shorter of waiting and computing is hidden but for its C-th part. In return
/// each further chunk reads the weights of its experts again, which takes as long as some rows, and
/// costs its messages:
///   (C - 1) (computed x kRowsWorthReading / rows_per_expert + kMessages_s)
///     - (1 - 1 / C) min(waited, computed)
/// @returns C, at most 8; 1 if no more than 2 % would be saved
std::int32_t choose_num_chunks(const OneChunkTimes& times);

}  // namespace c2r
