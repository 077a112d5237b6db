// Checks of counts that a caller hands over in memory.
#pragma once

#include <string_view>

#include "c2r/collaboration/collaboration.h"
#include "c2r/core/error.h"

namespace c2r {

/// @throws Error(kInvalidArgument) unless the counts are [num_experts, num_experts]
inline void check_is_square(const CollaborationMatrix& counts) {
  C2R_REQUIRE(counts.rows() == counts.cols(), kInvalidArgument,
              "a collaboration matrix is square, not {}x{}", counts.rows(), counts.cols());
}

/// Checks that all parts are of num_layers layers and of num_experts experts.
/// @param place what the statistics are, for messages
/// @throws Error(kInvalidArgument)
void check_extents(const CollaborationStatistics& statistics, std::string_view place);

}  // namespace c2r
