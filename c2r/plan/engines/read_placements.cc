#include "c2r/plan/engines/read_placements.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"
#include "c2r/io/json.h"
#include "c2r/io/npy.h"
#include "c2r/routing/routing.h"

namespace c2r {
namespace {

// `slots` in rank order as a placement. `layer` names it in messages.
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
    check_placement(placement);
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

// {KEY OF LAYER: [num_slots]} with exactly the given keys, in any order.
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

// The yaml that the exporter writes, as the JSON object that it stands for.
Json parse_simple_yaml(std::string_view text, std::string_view place) {
  constexpr auto kMaxKeys = std::size_t{2} * kMaxLayers;  // each is compared with those before it
  Json json = Json::object();
  Json* nested = nullptr;
  for (std::size_t begin = 0, number = 1; begin < text.size(); ++number) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = text.substr(begin, end - begin);
    begin = end + 1;
    const std::string here = fmt::format("{}: line {}", place, number);
    if (line.empty() || line.starts_with('#')) continue;
    const bool is_nested = line.starts_with("  ");
    const std::size_t colon = line.find(':');
    const std::string_view after = line.substr(std::min(colon, line.size()));
    C2R_REQUIRE((after == ":" || after.starts_with(": ")) && (!is_nested || nested != nullptr),
                kInvalidFile, "{}: expected 'key: value', not '{}'", here, shown(line));
    const std::string key(line.substr(is_nested ? 2 : 0, colon - (is_nested ? 2 : 0)));
    const std::string_view value = after.substr(std::min<std::size_t>(2, after.size()));
    Json& object = is_nested ? *nested : json;
    C2R_REQUIRE(object.size() < kMaxKeys, kInvalidFile, "{}: there are more than {} keys", here,
                kMaxKeys);
    C2R_REQUIRE(!object.contains(key), kInvalidFile, "{}: the key '{}' is there twice", here,
                shown(key));
    object[key] = value.empty() ? Json::object() : parse_json(value, here);
    if (!is_nested) nested = value.empty() ? &object[key] : nullptr;
  }
  return json;
}

// The experts of omni-infer's MoE layer `l`, rank by rank, each rank with equally many.
std::vector<std::int64_t> slots_of_pattern(const NpyView& array, std::int64_t l,
                                           const MapShape& shape, std::string_view place) {
  std::vector<std::int64_t> slots;
  for (std::int64_t r = 0; r < shape.ep_size; ++r) {
    const std::size_t before = slots.size();
    for (std::int64_t e = 0; e < shape.num_experts; ++e) {
      const std::int64_t value =
          integer_at(array, (r * shape.num_layers() + l) * shape.num_experts + e);
      C2R_REQUIRE(value == 0 || value == 1, kInvalidFile,
                  "{}: rank {}, row {}, expert {} is {}, but must be 0 or 1", place, r, l, e,
                  value);
      if (value == 1) slots.push_back(e);
    }
    C2R_REQUIRE(slots.size() == static_cast<std::size_t>(r + 1) * (slots.size() - before),
                kInvalidFile,
                "{}: row {}: rank {} holds {} experts, which is not what rank 0 holds", place, l, r,
                slots.size() - before);
  }
  return slots;
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

}  // namespace

std::vector<Placement> import_sglang(std::string_view text, const MapShape& shape,
                                     std::string_view place) {
  const Json json = parse_json(text, place);
  C2R_REQUIRE(!json.is_object() || json.contains("physical_to_logical_map") ||
                  !json.contains("logical_count"),
              kInvalidFile,
              "{}: it has loads (logical_count), from which SGLang places by EPLB "
              "itself, and no placement",
              place);
  json_check_keys(json, {"physical_to_logical_map"}, "the map", place);
  const auto& rows =
      json_array(json_at(json, "physical_to_logical_map", place), "physical_to_logical_map", place);
  std::vector<Placement> placements;
  for (const std::int32_t layer : shape.layer_indices) {
    C2R_REQUIRE(layer < std::ssize(rows), kInvalidFile,
                "{}: the map has {} rows, but SGLang looks up row {}: rows count dense layers, too",
                place, rows.size(), layer);
    const auto row = static_cast<std::size_t>(layer);
    placements.push_back(placement_of_row(rows[row], shape, row_name(row), place));
    require_slots(placements.back(), placements[0].slots.rows() * placements[0].slots.cols(),
                  place);
  }
  return placements;
}

std::vector<Placement> import_tensorrt_llm(std::string_view text, const MapShape& shape,
                                           std::string_view place) {
  const Json yaml = parse_simple_yaml(text, place);
  json_check_keys(yaml, {"num_slots", "layer_updates_per_iter", "initial_global_assignments"},
                  "the yaml", place);
  const auto num_slots =
      json_integer(json_at(yaml, "num_slots", place), 1, INT32_MAX, "num_slots", place);
  json_integer(json_at(yaml, "layer_updates_per_iter", place), 0, INT32_MAX,
               "layer_updates_per_iter", place);
  auto placements = placements_by_key(json_at(yaml, "initial_global_assignments", place),
                                      model_indices(shape), shape, place);
  for (const Placement& placement : placements) require_slots(placement, num_slots, place);
  return placements;
}

std::vector<Placement> import_vllm_41141(std::string_view text, const MapShape& shape,
                                         std::string_view place) {
  const Json json = parse_json(text, place);
  json_check_keys(json,
                  {"record_type", "version", "num_redundant_experts", "num_slots",
                   "initial_global_assignments"},
                  "the record", place);
  const std::string& type = json_string(json_at(json, "record_type", place), "record_type", place);
  C2R_REQUIRE(type == "eplb_initial_mapping", kInvalidFile,
              "{}: record_type is '{}', not 'eplb_initial_mapping'", place, shown(type));
  json_integer(json_at(json, "version", place), 1, 1, "version", place);
  const auto num_slots =
      json_integer(json_at(json, "num_slots", place), 1, INT32_MAX, "num_slots", place);
  const std::int64_t spare = num_slots - shape.num_experts;
  json_integer(json_at(json, "num_redundant_experts", place), spare, spare, "num_redundant_experts",
               place);
  auto placements = placements_by_key(json_at(json, "initial_global_assignments", place),
                                      ordinals(shape), shape, place);
  for (const Placement& placement : placements) require_slots(placement, num_slots, place);
  return placements;
}

std::vector<Placement> import_vllm_49572(std::string_view text, const MapShape& shape,
                                         std::string_view place) {
  const Json json = parse_json(text, place);
  const auto& rows = json_array(json, "the map", place);
  if (rows.empty() || rows[0].is_array()) return placements_of_rows(json, shape, "the map", place);
  return {static_cast<std::size_t>(shape.num_layers()),
          placement_of_row(json, shape, "the map", place)};
}

std::vector<Placement> import_vllm_ascend(std::string_view text, const MapShape& shape,
                                          std::string_view place) {
  const Json json = parse_json(text, place);
  json_check_keys(json, {"moe_layer_count", "layer_list"}, "the map", place);
  const auto same = [&](const Json& object, std::string_view key, std::int64_t value) {
    json_integer(json_at(object, key, place), value, value, key, place);
  };
  same(json, "moe_layer_count", shape.num_layers());
  const auto& layers = json_array(json_at(json, "layer_list", place), "layer_list", place);
  C2R_REQUIRE(std::ssize(layers) == shape.num_layers(), kInvalidFile,
              "{}: layer_list has {} layers, but there are {} MoE layers", place, layers.size(),
              shape.num_layers());
  std::vector<Placement> placements;
  for (std::size_t l = 0; l < layers.size(); ++l) {
    json_check_keys(layers[l], {"layer_id", "device_count", "device_list"}, "a layer", place);
    same(layers[l], "layer_id", static_cast<std::int64_t>(l));
    same(layers[l], "device_count", shape.ep_size);
    const auto& devices =
        json_array(json_at(layers[l], "device_list", place), "device_list", place);
    std::vector<std::int64_t> slots;
    for (std::size_t d = 0; d < devices.size(); ++d) {
      json_check_keys(devices[d], {"device_id", "device_expert"}, "a device", place);
      same(devices[d], "device_id", static_cast<std::int64_t>(d));
      const auto experts =
          integers(json_at(devices[d], "device_expert", place), "device_expert", place);
      slots.insert(slots.end(), experts.begin(), experts.end());
      C2R_REQUIRE(slots.size() == (d + 1) * experts.size(), kInvalidFile,
                  "{}: layer {}: device {} has {} experts, which is not what device 0 has", place,
                  l, d, experts.size());
    }
    C2R_REQUIRE(std::ssize(devices) == shape.ep_size, kInvalidFile,
                "{}: layer {} has {} devices, but there are {} ranks", place, l, devices.size(),
                shape.ep_size);
    placements.push_back(placement_of_slots(slots, shape, fmt::format("layer {}", l), place));
  }
  return placements;
}

std::vector<Placement> import_eplb(std::string_view text, const MapShape& shape,
                                   std::string_view place) {
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

std::vector<Placement> import_permutation(std::string_view text, const MapShape& shape,
                                          std::string_view place) {
  const Json json = parse_json(text, place);
  json_check_keys(json, {"num_experts", "old_of_new", "new_of_old"}, "the permutation", place);
  json_integer(json_at(json, "num_experts", place), shape.num_experts, shape.num_experts,
               "num_experts", place);
  const auto keys = model_indices(shape);
  auto placements = placements_by_key(json_at(json, "old_of_new", place), keys, shape, place);
  const Json& inverse = json_at(json, "new_of_old", place);
  for (std::size_t l = 0; l < keys.size(); ++l) {
    const auto new_of_old = integers(json_at(inverse, keys[l], place), "new_of_old", place);
    const auto old_of_new = placements[l].slots.all();
    for (std::size_t p = 0; p < old_of_new.size(); ++p) {
      C2R_REQUIRE(old_of_new.size() == new_of_old.size() &&
                      new_of_old[index(old_of_new[p])] == static_cast<std::int64_t>(p),
                  kInvalidFile, "{}: layer {}: new_of_old is not the inverse of old_of_new", place,
                  keys[l]);
    }
  }
  return placements;
}

std::vector<Placement> import_omni_infer(std::string_view bytes, const MapShape& shape,
                                         std::string_view place) {
  const NpyView array = parse_npy(std::as_bytes(std::span(bytes)), place);
  const std::vector<std::int64_t> expected = {shape.ep_size, shape.num_layers(), shape.num_experts};
  C2R_REQUIRE(is_integer(array.dtype) && array.shape == expected, kInvalidFile,
              "{}: the array is {} {}, but must be integers {}: ranks, MoE layers, experts", place,
              dtype_name(array.dtype), shape_text(array.shape), shape_text(expected));
  std::vector<Placement> placements;
  for (std::int64_t l = 0; l < shape.num_layers(); ++l) {
    placements.push_back(placement_of_slots(slots_of_pattern(array, l, shape, place), shape,
                                            row_name(static_cast<std::size_t>(l)), place));
  }
  return placements;
}

}  // namespace c2r
