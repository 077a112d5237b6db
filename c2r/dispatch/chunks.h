// Into how many chunks a batch is cut.
#pragma once

#include <cstdint>

namespace c2r {

/// What a layer took in one chunk; the same values on every rank, so that all choose the same.
struct OneChunkTimes {
  // For rows and results on their way, of the rank that waited least: what others wait longer they
  // wait for that rank, not for a link.
  double waited_s = 0;
  double computed_s = 0;       // in experts, of the slowest rank
  double rows_per_expert = 0;  // on average
};

/// The number of chunks C that takes least. All but one of them can travel while another is
/// computed, so of the waiting and the computing the shorter one disappears but for a C-th. In
/// return each further chunk reads the weights of its experts again, which takes as long as some
/// rows, and costs its messages:
///   (C - 1) (computed x kRowsWorthReading / rows_per_expert + kMessages_s)
///     - (1 - 1 / C) min(waited, computed)
/// 1 if no more than 2 % would be saved. At most 8.
std::int32_t choose_num_chunks(const OneChunkTimes& times);

}  // namespace c2r
