#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "c2r/core/error.h"
#include "c2r/io/json.h"
#include "c2r/plan/engines/write_placements_internal.h"

namespace c2r::engine_files {
namespace {

static_assert(std::endian::native == std::endian::little, "write_omni_infer() writes <i4 as is");

// More than any model has; a map of them fits into memory.
constexpr std::int32_t kMaxHiddenLayers = 4096;

Json slots_to_json(const Placement& placement) {
  Json slots = Json::array();
  for (const ExpertId e : placement.slots.all()) slots.push_back(static_cast<std::int32_t>(e));
  return slots;
}

// [num_slots] of each MoE layer.
Json all_slots_to_json(const Plan& plan) {
  Json rows = Json::array();
  for (const PlanLayer& layer : plan.layers) rows.push_back(slots_to_json(layer.placement));
  return rows;
}

std::int64_t slots_of_every_layer(const Plan& plan) {
  const auto slots_of = [](const PlanLayer& layer) {
    return std::ssize(layer.placement.slots.all());
  };
  const std::int64_t num_slots = slots_of(plan.layers[0]);
  for (const PlanLayer& layer : plan.layers) {
    C2R_REQUIRE(slots_of(layer) == num_slots, kUnsupported,
                "layer {} has {} slots and layer {} has {}, but the engine has one number for all",
                plan.layers[0].layer_index, num_slots, layer.layer_index, slots_of(layer));
  }
  return num_slots;
}

// The slots of each expert, padded to the layer's most replicas, and their number.
std::pair<Json, Json> inverse_of(const Placement& placement, std::size_t most_replicas) {
  std::vector<std::vector<std::int64_t>> slots(static_cast<std::size_t>(placement.num_experts));
  std::int64_t next = 0;
  for (const ExpertId e : placement.slots.all()) slots[index(e)].push_back(next++);
  Json map = Json::array(), count = Json::array();
  for (auto& of_expert : slots) {
    count.push_back(of_expert.size());
    of_expert.resize(most_replicas, -1);
    map.push_back(of_expert);
  }
  return {map, count};
}

std::size_t most_replicas(const Plan& plan) {
  std::size_t most = 0;
  for (const PlanLayer& layer : plan.layers) {
    for (const auto& ranks : ranks_of_experts(layer.placement)) most = std::max(most, ranks.size());
  }
  return most;
}

std::string npy_header(std::int64_t ranks, std::int64_t layers, std::int64_t experts) {
  std::string header =
      fmt::format("{{'descr': '<i4', 'fortran_order': False, 'shape': ({}, {}, {}), }}", ranks,
                  layers, experts);
  const std::size_t preamble = 10;  // magic, version, length of the header
  header.append(64 - (preamble + header.size() + 1) % 64, ' ');
  header += '\n';
  const auto length = static_cast<std::uint16_t>(header.size());
  std::string bytes = "\x93NUMPY";
  for (const int byte : {1, 0, length & 0xff, length >> 8}) bytes += static_cast<char>(byte);
  return bytes + header;
}

}  // namespace

std::string write_sglang(const Plan& plan, const ExportOptions& options) {
  const std::int64_t num_slots = slots_of_every_layer(plan);
  const std::int32_t needed = plan.layers.back().layer_index + 1;
  const std::int32_t num_rows = options.num_hidden_layers.value_or(needed);
  C2R_REQUIRE(num_rows >= needed, kInvalidArgument,
              "the model has {} hidden layers, but the plan is for layer {}, too", num_rows,
              needed - 1);
  C2R_REQUIRE(num_rows <= kMaxHiddenLayers, kInvalidArgument,
              "sglang's map has a row for each of {} hidden layers, but may have at most {}",
              num_rows, kMaxHiddenLayers);
  Json row_of_dense_layer = Json::array();  // any valid row does: SGLang's own default
  for (std::int64_t p = 0; p < num_slots; ++p) row_of_dense_layer.push_back(p % plan.num_experts);
  std::vector<Json> rows(static_cast<std::size_t>(num_rows), row_of_dense_layer);
  for (const PlanLayer& layer : plan.layers) {
    rows[static_cast<std::size_t>(layer.layer_index)] = slots_to_json(layer.placement);
  }
  return Json({{"physical_to_logical_map", rows}}).dump() + "\n";
}

std::string write_tensorrt_llm(const Plan& plan, const ExportOptions&) {
  std::string text =
      fmt::format("num_slots: {}\nlayer_updates_per_iter: 0\ninitial_global_assignments:\n",
                  slots_of_every_layer(plan));
  for (const PlanLayer& layer : plan.layers) {
    text += fmt::format("  {}: {}\n", layer.layer_index, slots_to_json(layer.placement).dump());
  }
  return text;
}

std::string write_vllm_41141(const Plan& plan, const ExportOptions&) {
  const std::int64_t num_slots = slots_of_every_layer(plan);
  Json record = {{"record_type", "eplb_initial_mapping"},
                 {"version", 1},
                 {"num_redundant_experts", num_slots - plan.num_experts},
                 {"num_slots", num_slots},
                 {"initial_global_assignments", Json::object()}};
  for (std::size_t l = 0; l < plan.layers.size(); ++l) {
    record["initial_global_assignments"][std::to_string(l)] =
        slots_to_json(plan.layers[l].placement);
  }
  return record.dump() + "\n";
}

std::string write_vllm_49572(const Plan& plan, const ExportOptions&) {
  slots_of_every_layer(plan);
  return all_slots_to_json(plan).dump() + "\n";
}

std::string write_vllm_ascend(const Plan& plan, const ExportOptions&) {
  slots_of_every_layer(plan);
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

std::string write_omni_infer(const Plan& plan, const ExportOptions&) {
  const std::int64_t ranks = plan.cluster.ep_size(), layers = plan.num_layers();
  std::vector<std::int32_t> pattern(static_cast<std::size_t>(ranks * layers * plan.num_experts));
  for (std::int64_t l = 0; l < layers; ++l) {
    for (std::int64_t r = 0; r < ranks; ++r) {
      for (const ExpertId e : plan.layers[static_cast<std::size_t>(l)].placement.slots.row(r)) {
        const auto row = static_cast<std::size_t>((r * layers + l) * plan.num_experts);
        pattern[row + index(e)] = 1;
      }
    }
  }
  std::string bytes = npy_header(ranks, layers, plan.num_experts);
  bytes.append(reinterpret_cast<const char*>(pattern.data()), pattern.size() * sizeof(pattern[0]));
  return bytes;
}

std::string write_eplb(const Plan& plan, const ExportOptions&) {
  slots_of_every_layer(plan);
  Json inverse = Json::array(), counts = Json::array();
  const std::size_t width = most_replicas(plan);
  for (const PlanLayer& layer : plan.layers) {
    auto [map, count] = inverse_of(layer.placement, width);
    inverse.push_back(std::move(map));
    counts.push_back(std::move(count));
  }
  return Json({{"physical_to_logical_map", all_slots_to_json(plan)},
               {"logical_to_physical_map", inverse},
               {"logical_count", counts}})
             .dump() +
         "\n";
}

std::string write_permutation(const Plan& plan, const ExportOptions&) {
  Json json = {{"num_experts", plan.num_experts},
               {"old_of_new", Json::object()},
               {"new_of_old", Json::object()}};
  for (const PlanLayer& layer : plan.layers) {
    const std::string key = std::to_string(layer.layer_index);
    C2R_REQUIRE(std::ssize(layer.placement.slots.all()) == plan.num_experts, kUnsupported,
                "layer {} has {} slots for {} experts, but a permutation cannot express replicas",
                key, layer.placement.slots.all().size(), plan.num_experts);
    json["old_of_new"][key] = slots_to_json(layer.placement);
    std::vector<std::int64_t> new_of_old;
    for (const auto& slot : inverse_of(layer.placement, 1).first) {
      new_of_old.push_back(slot[0].get<std::int64_t>());
    }
    json["new_of_old"][key] = new_of_old;
  }
  return json.dump() + "\n";
}

}  // namespace c2r::engine_files
