// Writes and reads EPLB's three results: "physical_to_logical_map" [num_layers][num_slots],
// "logical_to_physical_map" [num_layers][num_experts][most replicas], -1 = none, and
// "logical_count" [num_layers][num_experts], which must agree.
#include <fmt/format.h>

#include <algorithm>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"
#include "c2r/io/json.h"
#include "c2r/plan/engines/engine_rows_internal.h"
#include "c2r/plan/engines/placement_files_internal.h"

namespace c2r {
namespace {

using namespace placement_files;  // NOLINT(google-build-using-namespace)

std::size_t most_replicas(const Plan& plan) {
  std::size_t most = 0;
  for (const PlanLayer& layer : plan.layers) {
    std::vector<std::size_t> num_slots(static_cast<std::size_t>(plan.num_experts));
    const Matrix<ExpertId> experts = engine_slots(layer);
    for (const ExpertId e : experts.all()) most = std::max(most, ++num_slots[index(e)]);
  }
  return most;
}

std::string write_eplb_maps(const Plan& plan, const ExportOptions&) {
  Json inverse = Json::array(), counts = Json::array();
  const std::size_t width = most_replicas(plan);
  for (const PlanLayer& layer : plan.layers) {
    auto [map, count] = inverse_of(layer, width);
    inverse.push_back(std::move(map));
    counts.push_back(std::move(count));
  }
  return Json({{"physical_to_logical_map", all_slots_to_json(plan)},
               {"logical_to_physical_map", inverse},
               {"logical_count", counts}})
             .dump() +
         "\n";
}

void check_eplb_inverse(const Json& logical_to_physical, const Json& logical_count,
                        const Placement& placement, std::string_view layer,
                        std::string_view place) {
  const auto counts = integers(logical_count, "logical_count", place);
  const auto& slots_of = json_array(logical_to_physical, "logical_to_physical_map", place);
  std::vector<std::vector<std::int64_t>> expected(static_cast<std::size_t>(placement.num_experts));
  const auto slots = placement.slots.all();
  for (std::size_t p = 0; p < slots.size(); ++p) {
    expected[index(slots[p])].push_back(static_cast<std::int64_t>(p));
  }
  C2R_REQUIRE(counts.size() == expected.size() && slots_of.size() == expected.size(), kInvalidFile,
              "{}: {}: the inverse maps are not of {} experts", place, layer, expected.size());
  for (std::size_t e = 0; e < expected.size(); ++e) {
    auto found = integers(slots_of[e], "logical_to_physical_map", place);
    std::erase(found, -1);
    std::ranges::sort(found);
    C2R_REQUIRE(found == expected[e] && counts[e] == std::ssize(expected[e]), kInvalidFile,
                "{}: {}: the inverse maps put expert {} into slots {}, but the map into {}", place,
                layer, e, shown(fmt::format("{}", fmt::join(found, " "))),
                shown(fmt::format("{}", fmt::join(expected[e], " "))));
  }
}

std::vector<Placement> read_eplb_maps(std::string_view text, const MapShape& shape,
                                      std::string_view place, std::vector<std::string>& /*notes*/) {
  const Json json = parse_json(text, place);
  json_check_keys(json, {"physical_to_logical_map", "logical_to_physical_map", "logical_count"},
                  "the map", place);
  auto placements = placements_of_rows(json_at(json, "physical_to_logical_map", place), shape,
                                       "physical_to_logical_map", place);
  const auto& inverse =
      json_array(json_at(json, "logical_to_physical_map", place), "logical_to_physical_map", place);
  const auto& counts = json_array(json_at(json, "logical_count", place), "logical_count", place);
  C2R_REQUIRE(inverse.size() == placements.size() && counts.size() == placements.size(),
              kInvalidFile, "{}: the three maps have {}, {} and {} layers", place,
              placements.size(), inverse.size(), counts.size());
  for (std::size_t row = 0; row < placements.size(); ++row) {
    check_eplb_inverse(inverse[row], counts[row], placements[row], row_name(row), place);
  }
  return placements;
}

std::string eplb_usage(const Plan& plan, std::string_view path) {
  return fmt::format("{} in place of the results of eplb.rebalance_experts with {} replicas", path,
                     num_slots_of_each_layer(plan));
}

constexpr PlacementFile kEplbFiles[] = {{.name = "eplb",
                                         .suffix = ".json",
                                         .usage = eplb_usage,
                                         .write = write_eplb_maps,
                                         .read = read_eplb_maps}};

}  // namespace

EngineRow engine_rows::eplb() {
  return {.name = "eplb", .title = "EPLB", .files = kEplbFiles};
}

}  // namespace c2r
