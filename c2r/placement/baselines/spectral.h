// Spectral grouping: experts that are chosen together go into one group, groups are limited in
// size.
#pragma once

#include <cstdint>
#include <vector>

#include "c2r/core/matrix.h"

namespace c2r {

struct GroupSizes {
  std::int32_t num_groups = 1;
  std::int32_t min = 0, max = 0;  // items in a group
};

/// Groups the nodes of a graph by normalised spectral clustering (Ng, Jordan and Weiss 2001): the
/// num_groups leading eigenvectors of D^-1/2 W D^-1/2, rows scaled to length 1, then k-means whose
/// assignment respects the sizes. Nothing is drawn: k-means starts from the item of largest degree
/// and then, each time, the item farthest from the chosen ones; of equals the lower.
///
/// The same input gives the same groups with the same build; where items are equally good for two
/// groups, the rounding of another compiler's eigenvectors may decide otherwise.
///
/// @param affinity [n, n] symmetric, at least 0; the diagonal is ignored
/// @returns the group of each item, numbered by their lowest items. [n]
/// @throws Error(kInvalidArgument) if n items do not fit into the sizes
///
/// Cost: O(n^3) for the eigenvectors, 1 s for 1024 items; 50 rounds of k-means at most.
std::vector<std::int32_t> group_by_affinity(MatrixView<const std::int64_t> affinity,
                                            const GroupSizes& sizes);

}  // namespace c2r
