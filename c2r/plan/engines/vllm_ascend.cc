// Writes and reads vllm-ascend's `expert_map_path`: a list of layers, each a list of devices. Like
// the engine, the reader takes layers and devices in their order, and refuses ids of another order.
#include <fmt/format.h>

#include "c2r/core/error.h"
#include "c2r/io/json.h"
#include "c2r/plan/engines/engine_rows_internal.h"
#include "c2r/plan/engines/placement_files_internal.h"

namespace c2r {
namespace {

using namespace placement_files;  // NOLINT(google-build-using-namespace)

std::string write_vllm_ascend_map(const Plan& plan, const ExportOptions&) {
  Json layers = Json::array();
  for (std::size_t l = 0; l < plan.layers.size(); ++l) {
    const Placement& placement = plan.layers[l].placement;
    Json devices = Json::array();
    for (std::int64_t r = 0; r < placement.slots.rows(); ++r) {
      Json experts = Json::array();
      for (const ExpertId e : placement.slots.row(r)) {
        experts.push_back(static_cast<std::int32_t>(e));
      }
      devices.push_back({{"device_id", r}, {"device_expert", experts}});
    }
    layers.push_back(
        {{"layer_id", l}, {"device_count", placement.slots.rows()}, {"device_list", devices}});
  }
  return Json({{"moe_layer_count", plan.layers.size()}, {"layer_list", layers}}).dump() + "\n";
}

std::vector<Placement> read_vllm_ascend_map(std::string_view text, const MapShape& shape,
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

std::string vllm_ascend_usage(const Plan&, std::string_view path) {
  return fmt::format(
      "--enable-expert-parallel --additional-config '{{\"eplb_config\": {{\"expert_map_path\": "
      "\"{}\"}}}}'",
      path);
}

constexpr std::string_view kVllmAscendCautions[] = {
    "vllm-ascend reads this file in model runner v1 only",
    "with DYNAMIC_EPLB=true, vllm-ascend replaces the placement while it runs"};

constexpr PlacementFile kVllmAscendFiles[] = {{.name = "vllm-ascend",
                                               .suffix = ".json",
                                               .usage = vllm_ascend_usage,
                                               .write = write_vllm_ascend_map,
                                               .read = read_vllm_ascend_map,
                                               .cautions = kVllmAscendCautions}};

}  // namespace

EngineRow engine_rows::vllm_ascend() {
  return {.name = "vllm-ascend", .title = "vLLM-Ascend", .files = kVllmAscendFiles};
}

}  // namespace c2r
