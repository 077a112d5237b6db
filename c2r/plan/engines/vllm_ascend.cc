// Writes and reads vllm-ascend's `expert_map_path`: a list of layers, each a list of devices. Like
// the engine, the reader takes layers and devices in their order, and refuses ids of another order.
// A shared expert on every device and a layer of multi-token prediction are left out.
#include <fmt/format.h>

#include <algorithm>

#include "c2r/core/error.h"
#include "c2r/io/json.h"
#include "c2r/plan/engines/engine_rows_internal.h"
#include "c2r/plan/engines/exchange_kernels_internal.h"
#include "c2r/plan/engines/placement_files_internal.h"

namespace c2r {
namespace {

using namespace placement_files;  // NOLINT(google-build-using-namespace)

std::string write_vllm_ascend_map(const Plan& plan, const ExportOptions&) {
  Json layers = Json::array();
  for (std::size_t l = 0; l < plan.layers.size(); ++l) {
    const Matrix<ExpertId> slots = engine_slots(plan.layers[l]);
    Json devices = Json::array();
    for (std::int64_t r = 0; r < slots.rows(); ++r) {
      Json experts = Json::array();
      for (const ExpertId e : slots.row(r)) {
        experts.push_back(static_cast<std::int32_t>(e));
      }
      devices.push_back({{"device_id", r}, {"device_expert", experts}});
    }
    layers.push_back({{"layer_id", l}, {"device_count", slots.rows()}, {"device_list", devices}});
  }
  return Json({{"moe_layer_count", plan.layers.size()}, {"layer_list", layers}}).dump() + "\n";
}

// The engine does not read ids of layers and devices, and other tools count them from 0 or from 1
// or leave them out. Where they are, they must not contradict the order, which is what counts.
void check_order(const Json& entry, std::string_view key, std::size_t at, std::int64_t& first,
                 std::string_view place) {
  const Json* const id = json_find(entry, key);
  if (id == nullptr) return;
  if (at == 0) first = json_integer(*id, 0, INT32_MAX, key, place);
  const std::int64_t expected = first + static_cast<std::int64_t>(at);
  json_integer(*id, expected, expected, key, place);
}

// [num_devices] of ids, in slot order.
std::vector<std::vector<std::int64_t>> devices_of_layer(const Json& layer, std::size_t l,
                                                        const MapShape& shape,
                                                        std::string_view place) {
  json_check_keys(layer, {"layer_id", "device_count", "device_list"}, "a layer", place);
  json_integer(json_at(layer, "device_count", place), shape.ep_size, shape.ep_size, "device_count",
               place);
  std::vector<std::vector<std::int64_t>> experts;
  std::int64_t first_device = 0;
  const auto& devices = json_array(json_at(layer, "device_list", place), "device_list", place);
  for (std::size_t d = 0; d < devices.size(); ++d) {
    json_check_keys(devices[d], {"device_id", "device_expert"}, "a device", place);
    check_order(devices[d], "device_id", d, first_device, place);
    experts.push_back(
        integers(json_at(devices[d], "device_expert", place), "device_expert", place));
    C2R_REQUIRE(experts[d].size() == experts[0].size(), kInvalidFile,
                "{}: layer {}: device {} has {} experts, which is not what device 0 has", place, l,
                d, experts[d].size());
  }
  C2R_REQUIRE(std::ssize(devices) == shape.ep_size, kInvalidFile,
              "{}: layer {} has {} devices, but there are {} ranks", place, l, devices.size(),
              shape.ep_size);
  return experts;
}

// Removes the shared expert: the id after those of the routed ones, if it is on every device.
// @returns whether it was there
bool remove_shared_expert(std::vector<std::vector<std::int64_t>>& experts,
                          std::int32_t num_experts) {
  const bool is_shared = std::ranges::all_of(experts, [&](const auto& of_device) {
    return std::ranges::count(of_device, num_experts) == 1;
  });
  if (!is_shared) return false;
  for (auto& of_device : experts) std::erase(of_device, num_experts);
  return true;
}

std::vector<Placement> read_vllm_ascend_map(std::string_view text, const MapShape& shape,
                                            std::string_view place,
                                            std::vector<std::string>& notes) {
  const Json json = parse_json(text, place);
  json_check_keys(json, {"moe_layer_count", "layer_list"}, "the map", place);
  const auto& layers = json_array(json_at(json, "layer_list", place), "layer_list", place);
  json_integer(json_at(json, "moe_layer_count", place), std::ssize(layers), std::ssize(layers),
               "moe_layer_count", place);
  // A layer of multi-token prediction is one more than the model's.
  const bool has_mtp = std::ssize(layers) == shape.num_layers() + 1;
  C2R_REQUIRE(std::ssize(layers) == shape.num_layers() || has_mtp, kInvalidFile,
              "{}: layer_list has {} layers, but there are {} MoE layers", place, layers.size(),
              shape.num_layers());
  std::vector<Placement> placements;
  std::int64_t first_layer = 0;
  std::size_t num_shared = 0;
  for (std::size_t l = 0; l < layers.size() - (has_mtp ? 1 : 0); ++l) {
    auto experts = devices_of_layer(layers[l], l, shape, place);
    check_order(layers[l], "layer_id", l, first_layer, place);
    num_shared += remove_shared_expert(experts, shape.num_experts) ? 1 : 0;
    std::vector<std::int64_t> slots;
    for (const auto& of_device : experts) {
      slots.insert(slots.end(), of_device.begin(), of_device.end());
    }
    placements.push_back(placement_of_slots(slots, shape, fmt::format("layer {}", l), place));
  }
  if (has_mtp) {
    notes.push_back(
        fmt::format("left out: layer {} of the map, one more than the model has, thus of "
                    "multi-token prediction",
                    layers.size() - 1));
  }
  if (num_shared > 0) {
    notes.push_back(
        fmt::format("left out: expert {} of {} layers, which is on every device, thus "
                    "a shared one",
                    shape.num_experts, num_shared));
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

using namespace exchange_kernels;  // NOLINT(google-build-using-namespace)

// vLLM-Ascend chooses by device and batch (select_moe_comm_method): A2 takes mc2 on 16 ranks or
// more for at most 512 tokens a rank, else allgather; A3 takes mc2 for as many tokens, else
// alltoall.
constexpr ExchangeKernel kVllmAscendMc2[] = {
    read_in(kMc2,
            "vllm-project/vllm-ascend vllm_ascend/ops/fused_moe/token_dispatcher.py, "
            "TokenDispatcherWithMC2, at 182b75ea84ff, and CANN ops-transformer "
            "moe_distribute_dispatch_v2.h, SendToMoeExpert, at bfbbec839121"),
    with_setting(kMc2Hierarchical, "on A2 with enable_mc2_hierarchy_comm")};
constexpr ExchangeKernel kVllmAscendAllToAll[] = {
    read_in(kTorchAllToAll,
            "vllm-project/vllm-ascend vllm_ascend/ops/fused_moe/token_dispatcher.py, "
            "TokenDispatcherWithAll2AllV, at 182b75ea84ff")};
constexpr ExchangeKernel kVllmAscendAllGather[] = {kAllGather};
constexpr ExchangeKernel kVllmAscendFused[] = {
    {.title = "dispatch_ffn_combine",
     .source = "vllm-project/vllm-ascend csrc/mc2/dispatch_ffn_combine/op_kernel/"
               "dispatch_ffn_combine_kernel.hpp at 182b75ea84ff",
     .setting = "on A3 with enable_fused_mc2",
     .verdict = kFusedVerdict}};

constexpr Backend kVllmAscendBackends[] = {{"mc2", kVllmAscendMc2},
                                           {"alltoall", kVllmAscendAllToAll},
                                           {"allgather", kVllmAscendAllGather},
                                           {"fused_mc2", kVllmAscendFused}};

}  // namespace

EngineRow engine_rows::vllm_ascend() {
  return {.name = "vllm-ascend",
          .title = "vLLM-Ascend",
          .files = kVllmAscendFiles,
          .backends = kVllmAscendBackends};
}

}  // namespace c2r
