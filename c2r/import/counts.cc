// What the readers of counts share: sums that are checked, and statistics from loads.
#include "c2r/collaboration/limits.h"
#include "c2r/core/error.h"
#include "c2r/import/counts_internal.h"

namespace c2r::counts {

void add(std::int64_t count, std::int64_t& sum, std::string_view place) {
  C2R_REQUIRE(count >= 0, kInvalidFile, "{}: has the count {}, but counts must not be negative",
              place, count);
  C2R_REQUIRE(!__builtin_add_overflow(sum, count, &sum), kInvalidFile,
              "{}: the counts add up to more than 2^63 - 1", place);
}

void set_loads(const Loads& loads, std::size_t layer, const std::string& place,
               CollaborationStatistics& statistics) {
  std::int64_t sum = 0;
  for (const std::int64_t load : loads) add(load, sum, place);
  const std::int64_t top_k = statistics.header.top_k;
  C2R_REQUIRE(sum % top_k == 0, kInvalidFile,
              "{}: the loads add up to {}, which is not a multiple of top_k = {}", place, sum,
              top_k);
  C2R_REQUIRE(sum / top_k <= kMaxCountedTokens, kInvalidFile,
              "{}: the loads are of {} tokens, but may be of at most {}", place, sum / top_k,
              kMaxCountedTokens);
  statistics.num_tokens[layer] = sum / top_k;
  for (std::size_t e = 0; e < loads.size(); ++e) {
    C2R_REQUIRE(loads[e] <= sum / top_k, kInvalidFile,
                "{}: expert {} has the load {}, but the layer saw {} tokens of {} experts each",
                place, e, loads[e], sum / top_k, top_k);
    const auto expert = static_cast<std::int64_t>(e);
    statistics.coactivation[layer](expert, expert) = loads[e];
  }
}

CollaborationStatistics statistics_of_loads(const std::map<std::int32_t, Loads>& layers,
                                            TraceHeader header, const std::string& path) {
  for (const auto& [layer, loads] : layers) header.layer_indices.push_back(layer);
  check_header(header, path);
  auto statistics = empty_statistics(header, /*has_pairs=*/false);
  for (std::size_t at = 0; const auto& [layer, loads] : layers) {
    set_loads(loads, at++, fmt::format("{}, layer {}", path, layer), statistics);
  }
  return statistics;
}

void require_layers(const ImportRequest& request, const CollaborationStatistics& statistics) {
  C2R_REQUIRE(
      request.layer_indices.empty() || request.layer_indices == statistics.header.layer_indices,
      kInvalidFile, "{}: has {} MoE layers, which are not the {} given", request.inputs[0].string(),
      statistics.num_layers(), request.layer_indices.size());
}

}  // namespace c2r::counts
