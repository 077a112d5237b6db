// Lists the engines, and finds engines, backends and placement files by name.
#include "c2r/plan/engines/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"
#include "c2r/plan/engines/engine_rows_internal.h"
#include "c2r/routing/routing.h"

namespace c2r {
namespace {

void check_map_shape(const MapShape& shape) {
  C2R_REQUIRE(1 <= shape.num_experts && shape.num_experts <= kMaxExperts, kInvalidArgument,
              "num_experts is {}, but must be in [1, {}]", shape.num_experts, kMaxExperts);
  C2R_REQUIRE(1 <= shape.ep_size && shape.ep_size <= kMaxRanks, kInvalidArgument,
              "ep_size is {}, but must be in [1, {}]", shape.ep_size, kMaxRanks);
  const std::vector<std::int32_t>& layers = shape.layer_indices;
  C2R_REQUIRE(!layers.empty() && layers.size() <= kMaxLayers, kInvalidArgument,
              "there are {} MoE layers, but must be 1 to {}", layers.size(), kMaxLayers);
  const bool ascend = std::ranges::adjacent_find(layers, std::greater_equal{}) == layers.end();
  C2R_REQUIRE(ascend && layers.front() >= 0 && layers.back() <= kMaxLayerIndex, kInvalidArgument,
              "layer_indices must ascend within [0, {}]", kMaxLayerIndex);
}

}  // namespace

std::span<const EngineRow> engines() {
  static const EngineRow rows[] = {
      engine_rows::sglang(),      engine_rows::tensorrt_llm(), engine_rows::vllm(),
      engine_rows::vllm_ascend(), engine_rows::omni_infer(),   engine_rows::eplb(),
      engine_rows::megatron(),    engine_rows::transformers(), engine_rows::torchtitan(),
      engine_rows::deepspeed(),   engine_rows::axolotl()};
  return rows;
}

const EngineRow& find_engine(std::string_view name) {
  const auto found = std::ranges::find(engines(), name, &EngineRow::name);
  if (found != engines().end()) return *found;
  std::vector<std::string_view> names;
  for (const EngineRow& engine : engines()) names.push_back(engine.name);
  C2R_THROW(kInvalidArgument, "an engine is {}; not '{}'", fmt::join(names, ", "), shown(name));
}

const Backend* find_backend(const EngineRow& engine, std::string_view name) {
  const auto found = std::ranges::find_if(
      engine.backends, [&](const Backend& b) { return name.empty() || b.name == name; });
  return found == engine.backends.end() ? nullptr : &*found;
}

EngineBackend find_engine_backend(std::string_view engine, std::string_view backend) {
  const EngineRow& row = find_engine(engine);
  const Backend* const found = find_backend(row, backend);
  if (found != nullptr) return {&row, found};
  std::vector<std::string_view> names;
  for (const Backend& known : row.backends) names.push_back(known.name);
  C2R_REQUIRE(!names.empty(), kInvalidArgument,
              "c2r does not know how {} sends copies: leave the engine out, and give the copy mode",
              row.name);
  C2R_THROW(kInvalidArgument, "a backend of {} is {}; not '{}'", row.name, fmt::join(names, ", "),
            shown(backend));
}

const ExchangeKernel& kernel_of(const EngineBackend& use) {
  const auto kernels = use.backend->kernels;
  const auto found = std::ranges::find(kernels, use.decodes, &ExchangeKernel::is_for_decoding);
  return found == kernels.end() ? kernels[0] : *found;
}

std::vector<ExportTarget> export_targets() {
  std::vector<ExportTarget> targets;
  for (const EngineRow& engine : engines()) {
    for (const PlacementFile& file : engine.files) targets.push_back({engine, file});
  }
  return targets;
}

ExportTarget find_export_target(std::string_view name) {
  std::vector<std::string_view> names;
  for (const ExportTarget& target : export_targets()) {
    if (target.file.name == name) return target;
    names.push_back(target.file.name);
  }
  C2R_THROW(kInvalidArgument, "an export target is {}; not '{}'", fmt::join(names, ", "),
            shown(name));
}

MapShape map_shape(const Plan& plan) {
  MapShape shape{.num_experts = plan.num_experts, .ep_size = plan.cluster.ep_size()};
  for (const PlanLayer& layer : plan.layers) shape.layer_indices.push_back(layer.layer_index);
  return shape;
}

std::vector<PlanLayer> read_placements(const PlacementFile& file, std::string_view bytes,
                                       const MapShape& shape, std::string_view place,
                                       std::vector<std::string>* notes) {
  check_map_shape(shape);
  std::vector<std::string> ignored;
  auto placements = file.read(bytes, shape, place, notes == nullptr ? ignored : *notes);
  C2R_ASSERT(std::ssize(placements) == shape.num_layers());
  std::vector<PlanLayer> layers;
  for (std::size_t l = 0; l < placements.size(); ++l) {
    auto wasted = empty_wasted_slots(placements[l].slots);
    layers.push_back({.layer_index = shape.layer_indices[l],
                      .placement = std::move(placements[l]),
                      .wasted_slots = std::move(wasted)});
  }
  return layers;
}

}  // namespace c2r
