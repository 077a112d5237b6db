// What the readers of counts share: sums that are checked, and statistics from loads.
#include <cmath>

#include "c2r/collaboration/limits.h"
#include "c2r/core/error.h"
#include "c2r/import/counts_internal.h"
#include "c2r/import/formats_internal.h"

namespace c2r::counts {

void add(std::int64_t count, std::int64_t& sum, std::string_view place) {
  C2R_REQUIRE(count >= 0, kInvalidFile, "{}: has the count {}, but counts must not be negative",
              place, count);
  C2R_REQUIRE(!__builtin_add_overflow(sum, count, &sum), kInvalidFile,
              "{}: the counts add up to more than 2^63 - 1", place);
}

bool set_loads(const Loads& loads, std::size_t layer, const std::string& place,
               CollaborationStatistics& statistics) {
  std::int64_t sum = 0;
  for (const std::int64_t load : loads) add(load, sum, place);
  const std::int64_t top_k = statistics.header.top_k;
  const std::int64_t num_tokens = sum / top_k + (sum % top_k == 0 ? 0 : 1);
  C2R_REQUIRE(num_tokens <= kMaxCountedTokens, kInvalidFile,
              "{}: the loads are of {} tokens, but may be of at most {}", place, num_tokens,
              kMaxCountedTokens);
  statistics.num_tokens[layer] = num_tokens;
  for (std::size_t e = 0; e < loads.size(); ++e) {
    C2R_REQUIRE(loads[e] <= num_tokens, kInvalidFile,
                "{}: expert {} has the load {}, but the layer saw {} tokens of {} experts each",
                place, e, loads[e], num_tokens, top_k);
    const auto expert = static_cast<std::int64_t>(e);
    statistics.coactivation[layer](expert, expert) = loads[e];
  }
  return sum % top_k == 0;
}

CollaborationStatistics statistics_of_loads(const ImportRequest& request,
                                            const std::map<std::int32_t, Loads>& layers,
                                            TraceHeader header, const std::string& path) {
  for (const auto& [layer, loads] : layers) header.layer_indices.push_back(layer);
  check_header(header, path);
  auto statistics = empty_statistics(header, /*has_pairs=*/false);
  std::int64_t num_inexact = 0;
  for (std::size_t at = 0; const auto& [layer, loads] : layers) {
    const bool is_exact =
        set_loads(loads, at++, fmt::format("{}, layer {}", path, layer), statistics);
    num_inexact += is_exact ? 0 : 1;
  }
  if (num_inexact > 0) {
    add_note(request, fmt::format("check --top-k: in {} of {} layers the loads do not add up to a "
                                  "multiple of {}; counts are approximate, or top-k is another",
                                  num_inexact, layers.size(), header.top_k));
  }
  return statistics;
}

std::int64_t count_of(double value, std::string_view place) {
  constexpr double kMaxWholeFloat = 9007199254740992;  // 2^53, up to which floats are exact
  C2R_REQUIRE(value == std::floor(value) && std::abs(value) <= kMaxWholeFloat, kInvalidFile,
              "{}: a count is {}, but must be a whole number of at most 2^53", place, value);
  return static_cast<std::int64_t>(value);
}

std::int64_t count_of(const Json& value, std::string_view place) {
  if (!value.is_number_float()) return json_integer(value, 0, INT64_MAX, "a count", place);
  return count_of(json_number(value, 0, "a count", place), place);
}

void require_layers(const ImportRequest& request, const CollaborationStatistics& statistics) {
  C2R_REQUIRE(
      request.layer_indices.empty() || request.layer_indices == statistics.header.layer_indices,
      kInvalidFile, "{}: has {} MoE layers, which are not the {} given", request.inputs[0].string(),
      statistics.num_layers(), request.layer_indices.size());
}

}  // namespace c2r::counts
