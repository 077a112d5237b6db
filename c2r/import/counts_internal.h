// What the readers of counts share: sums that are checked, and statistics from loads.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/import/import.h"

namespace c2r::counts {

using Loads = std::vector<std::int64_t>;  // [num_experts]

/// Adds `count` to `sum`.
/// @throws Error(kInvalidFile) if it is negative or the sum overflows
void add(std::int64_t count, std::int64_t& sum, std::string_view place);

/// Sets a layer's diagonal and number of tokens.
/// @throws Error(kInvalidFile) if no tokens of top_k distinct experts each have such loads
void set_loads(const Loads& loads, std::size_t layer, const std::string& place,
               CollaborationStatistics& statistics);

/// Statistics without pairs.
/// @param layers by the model's own index; their indices become the header's
CollaborationStatistics statistics_of_loads(const std::map<std::int32_t, Loads>& layers,
                                            TraceHeader header, const std::string& path);

/// Checks that the statistics have the layers that the request names, if it names any.
/// @throws Error(kInvalidFile)
void require_layers(const ImportRequest& request, const CollaborationStatistics& statistics);

}  // namespace c2r::counts
