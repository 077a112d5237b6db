// Functions that the readers and writers of several engines' placement files share.
#include <fmt/format.h>

#include <algorithm>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"
#include "c2r/plan/engines/placement_files_internal.h"

namespace c2r::placement_files {

Placement placement_of_slots(std::span<const std::int64_t> slots, const MapShape& shape,
                             std::string_view layer, std::string_view place) {
  C2R_REQUIRE(!slots.empty() && std::ssize(slots) % shape.ep_size == 0, kInvalidFile,
              "{}: {} has {} slots, which {} ranks cannot share evenly", place, layer, slots.size(),
              shape.ep_size);
  Placement placement{.num_experts = shape.num_experts,
                      .slots = {shape.ep_size, std::ssize(slots) / shape.ep_size}};
  std::ranges::transform(slots, placement.slots.all().begin(), [&](std::int64_t e) {
    C2R_REQUIRE(0 <= e && e < shape.num_experts, kInvalidFile,
                "{}: {} names expert {}, but the model has experts 0 to {}", place, layer, e,
                shape.num_experts - 1);
    return ExpertId{static_cast<std::int32_t>(e)};
  });
  try {
    Placement without_repeats = placement;
    empty_wasted_slots(without_repeats.slots);
    check_slots(without_repeats);
  } catch (const Error& e) {
    C2R_THROW(kInvalidFile, "{}: {}: {}", place, layer, e.what());
  }
  return placement;
}

std::vector<std::int64_t> integers(const Json& json, std::string_view what,
                                   std::string_view place) {
  std::vector<std::int64_t> values;
  for (const Json& value : json_array(json, what, place)) {
    values.push_back(json_integer(value, -1, INT32_MAX, what, place));
  }
  return values;
}

Placement placement_of_row(const Json& row, const MapShape& shape, std::string_view layer,
                           std::string_view place) {
  return placement_of_slots(integers(row, layer, place), shape, layer, place);
}

std::string row_name(std::size_t row) {
  return fmt::format("row {}", row);
}

std::vector<Placement> placements_by_key(const Json& object, const std::vector<std::string>& keys,
                                         const MapShape& shape, std::string_view place) {
  std::vector<Placement> placements;
  placements.reserve(keys.size());
  for (const std::string& key : keys) {
    placements.push_back(
        placement_of_row(json_at(object, key, place), shape, fmt::format("layer {}", key), place));
  }
  for (const auto& item : object.items()) {
    C2R_REQUIRE(std::ranges::find(keys, item.key()) != keys.end(), kInvalidFile,
                "{}: there is a layer '{}', but the MoE layers are {}", place, shown(item.key()),
                fmt::join(keys, ", "));
  }
  return placements;
}

std::vector<std::string> ordinals(const MapShape& shape) {
  std::vector<std::string> keys;
  for (std::int64_t l = 0; l < shape.num_layers(); ++l) keys.push_back(std::to_string(l));
  return keys;
}

std::vector<std::string> model_indices(const MapShape& shape) {
  std::vector<std::string> keys;
  for (const std::int32_t layer : shape.layer_indices) keys.push_back(std::to_string(layer));
  return keys;
}

std::vector<Placement> placements_of_rows(const Json& json, const MapShape& shape,
                                          std::string_view what, std::string_view place) {
  const auto& rows = json_array(json, what, place);
  C2R_REQUIRE(std::ssize(rows) == shape.num_layers(), kInvalidFile,
              "{}: {} has {} rows, but there are {} MoE layers", place, what, rows.size(),
              shape.num_layers());
  std::vector<Placement> placements;
  for (std::size_t row = 0; row < rows.size(); ++row) {
    placements.push_back(placement_of_row(rows[row], shape, row_name(row), place));
  }
  return placements;
}

void require_slots(const Placement& placement, std::int64_t num_slots, std::string_view place) {
  const std::int64_t slots = placement.slots.rows() * placement.slots.cols();
  C2R_REQUIRE(slots == num_slots, kInvalidFile, "{}: num_slots is {}, but a layer has {} slots",
              place, num_slots, slots);
}

Matrix<ExpertId> engine_slots(const PlanLayer& layer) {
  return with_wasted_slots(layer.placement, layer.wasted_slots);
}

Json slots_to_json(const PlanLayer& layer) {
  Json slots = Json::array();
  const Matrix<ExpertId> experts = engine_slots(layer);
  for (const ExpertId e : experts.all()) slots.push_back(static_cast<std::int32_t>(e));
  return slots;
}

Json all_slots_to_json(const Plan& plan) {
  Json rows = Json::array();
  for (const PlanLayer& layer : plan.layers) rows.push_back(slots_to_json(layer));
  return rows;
}

std::int64_t num_slots_of_each_layer(const Plan& plan) {
  return std::ssize(plan.layers[0].placement.slots.all());
}

std::int64_t num_redundant_slots(const Plan& plan) {
  return num_slots_of_each_layer(plan) - plan.num_experts;
}

std::pair<Json, Json> inverse_of(const PlanLayer& layer, std::size_t most_replicas) {
  std::vector<std::vector<std::int64_t>> slots(
      static_cast<std::size_t>(layer.placement.num_experts));
  std::int64_t next = 0;
  const Matrix<ExpertId> experts = engine_slots(layer);
  for (const ExpertId e : experts.all()) slots[index(e)].push_back(next++);
  Json map = Json::array(), count = Json::array();
  for (auto& of_expert : slots) {
    count.push_back(of_expert.size());
    of_expert.resize(most_replicas, -1);
    map.push_back(of_expert);
  }
  return {map, count};
}

}  // namespace c2r::placement_files
