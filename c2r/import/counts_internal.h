// What the readers of counts share: sums that are checked, and statistics from loads.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/import/import.h"
#include "c2r/io/json.h"

namespace c2r::counts {

using Loads = std::vector<std::int64_t>;  // [num_experts]

/// Adds `count` to `sum`.
/// @throws Error(kInvalidFile) if it is negative or the sum overflows
void add(std::int64_t count, std::int64_t& sum, std::string_view place);

/// Sets a layer's diagonal and number of tokens: the loads' sum over top_k, rounded up.
/// @returns whether top_k divides the sum; else a count is approximate or top_k is wrong
/// @throws Error(kInvalidFile) if an expert's load is more than the tokens
bool set_loads(const Loads& loads, std::size_t layer, const std::string& place,
               CollaborationStatistics& statistics);

/// Statistics without pairs. Adds a note if top_k does not divide a layer's sum.
/// @param layers by the model's own index; their indices become the header's
CollaborationStatistics statistics_of_loads(const ImportRequest& request,
                                            const std::map<std::int32_t, Loads>& layers,
                                            TraceHeader header, const std::string& path);

/// A count that is written as a whole float.
/// @throws Error(kInvalidFile) if it is no whole number of at most 2^53 without its sign
std::int64_t count_of(double value, std::string_view place);

/// A count in JSON, which may be written as a whole float, as 4.0.
/// @throws Error(kInvalidFile) if it is negative or no whole number of at most 2^53
std::int64_t count_of(const Json& value, std::string_view place);

/// Checks that the statistics have the layers that the request names, if it names any.
/// @throws Error(kInvalidFile)
void require_layers(const ImportRequest& request, const CollaborationStatistics& statistics);

}  // namespace c2r::counts
