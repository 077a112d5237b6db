// The linear assignment problem: pairs rows with columns so that the sum of gains is the largest.
#pragma once

#include <cstdint>
#include <vector>

#include "c2r/core/matrix.h"

namespace c2r {

/// @param gain [n, n], finite
/// @returns the column of each row, each column once, with the largest sum of gains. Of several
///          such assignments one that depends on the gains alone. [n]
/// @throws Error(kInvalidArgument) if the gains are not square, or one is not finite
///
/// Cost: O(n^3), by shortest augmenting paths (the Hungarian algorithm).
std::vector<std::int32_t> best_assignment(MatrixView<const double> gain);

}  // namespace c2r
