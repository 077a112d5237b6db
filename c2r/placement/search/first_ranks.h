// Where a search for one layer begins.
#pragma once

#include <cstdint>
#include <vector>

#include "c2r/placement/cluster.h"
#include "c2r/placement/optimize_options.h"
#include "c2r/placement/search/search_energy.h"
#include "c2r/placement/token_sets.h"

namespace c2r {

/// @param options with groups that divide the experts and that the nodes divide, or without
/// @returns the rank of each item: contiguous experts, padded to as many for every rank; with more
///          groups than nodes, groups that are chosen together share a node. [items]
///
/// Cost: with more groups than nodes, a search whose experts are the groups; else O(items).
std::vector<std::int32_t> first_ranks(const TokenSets& sets, const Cluster& cluster,
                                      const OptimizeOptions& options, const SearchLimits& limits);

}  // namespace c2r
