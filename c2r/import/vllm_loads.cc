// The records `eplb_load_stats` of vLLM's pull request 41141, one on each line: `expert_load`
// [num_layers][num_slots] of one step, and `p2l_map` of the same shape, the experts in the slots.
// Steps are added up; records of other types are left out. Layers are MoE layers.
#include <algorithm>
#include <map>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"
#include "c2r/import/counts_internal.h"
#include "c2r/import/formats_internal.h"
#include "c2r/import/json_inputs_internal.h"
#include "c2r/routing/routing.h"

namespace c2r {
namespace {

using namespace counts;  // NOLINT(google-build-using-namespace)

// The loads of the experts of a layer, which grow with the largest expert that is named.
void add_slots(const Json& loads, const Json& experts, const std::string& place, Loads& sums) {
  const auto& of_slots = json_array(loads, "expert_load", place);
  const auto& map = json_array(experts, "p2l_map", place);
  C2R_REQUIRE(of_slots.size() == map.size(), kInvalidFile,
              "{}: expert_load has {} slots, but p2l_map has {}", place, of_slots.size(),
              map.size());
  for (std::size_t slot = 0; slot < map.size(); ++slot) {
    const auto e = static_cast<std::size_t>(
        json_integer(map[slot], 0, kMaxExperts - 1, "an expert of p2l_map", place));
    if (sums.size() <= e) sums.resize(e + 1);
    counts::add(count_of(of_slots[slot], place), sums[e], place);
  }
}

class VllmLoads {
 public:
  void add_record(const Json& record, const std::string& place) {
    const std::string& type =
        json_string(json_at(record, "record_type", place), "record_type", place);
    if (type != "eplb_load_stats") {
      ++num_others_;
      return;
    }
    json_integer(json_at(record, "version", place), 1, 1, "version", place);
    const auto& loads = json_array(json_at(record, "expert_load", place), "expert_load", place);
    const auto& maps = json_array(json_at(record, "p2l_map", place), "p2l_map", place);
    C2R_REQUIRE(!loads.empty() && loads.size() <= kMaxLayers && loads.size() == maps.size(),
                kInvalidFile,
                "{}: expert_load has {} layers and p2l_map {}, but both must have the same from 1 "
                "to {}",
                place, loads.size(), maps.size(), kMaxLayers);
    if (layers_.empty()) layers_.resize(loads.size());
    C2R_REQUIRE(loads.size() == layers_.size(), kInvalidFile,
                "{}: has {} layers, but the records before it have {}", place, loads.size(),
                layers_.size());
    for (std::size_t layer = 0; layer < loads.size(); ++layer) {
      add_slots(loads[layer], maps[layer], fmt::format("{}, layer {}", place, layer),
                layers_[layer]);
    }
  }

  CollaborationStatistics finish(const ImportRequest& request) {
    const std::string path = request.inputs[0].string();
    std::size_t num_experts = 0;
    for (const Loads& loads : layers_) num_experts = std::max(num_experts, loads.size());
    C2R_REQUIRE(num_experts > 0, kInvalidFile, "{}: has no record 'eplb_load_stats'", path);
    const auto& given = request.layer_indices;
    C2R_REQUIRE(given.empty() || given.size() == layers_.size(), kInvalidFile,
                "{}: has {} layers, but {} layer indices were given", path, layers_.size(),
                given.size());
    std::map<std::int32_t, Loads> layers;
    for (std::size_t layer = 0; layer < layers_.size(); ++layer) {
      layers_[layer].resize(num_experts);
      layers[given.empty() ? static_cast<std::int32_t>(layer) : given[layer]] = layers_[layer];
    }
    if (num_others_ > 0) {
      add_note(request, fmt::format("left out: {} records of other types", num_others_));
    }
    return statistics_of_loads(request, layers,
                               {.model = request.model,
                                .num_experts = static_cast<std::int32_t>(num_experts),
                                .top_k = *request.top_k},
                               path);
  }

 private:
  std::vector<Loads> layers_;
  std::int64_t num_others_ = 0;
};

CollaborationStatistics read_vllm_loads(const ImportRequest& request) {
  VllmLoads loads;
  for_each_json(request, is_list_of_objects,
                [&](const Json& json, const std::string& place) { loads.add_record(json, place); });
  return loads.finish(request);
}

}  // namespace

ImportFormat import_rows::vllm_loads() {
  return {.name = "vllm-loads",
          .summary = "records eplb_load_stats of vLLM's pull request 41141: loads without pairs",
          .makes = ImportKind::kStatistics,
          .needs = {ImportField::kTopK},
          .uses = {ImportField::kNumExperts, ImportField::kLayerIndices},
          .endings = {".jsonl", ".json"},
          .statistics = read_vllm_loads};
}

}  // namespace c2r
