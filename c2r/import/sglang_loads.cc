// SGLang's `logical_count` [num_steps, num_layers, num_experts], or without the steps, which are
// added up: the `.pt` files of the recorder in any mode (c2r/import/torch/recorder_internal.h), or
// an object with that key as JSON. Several inputs are added up. The layer axis has all layers of
// the model; those without any token are dense and left out. A layer's tokens are its loads' sum
// over top_k.
#include <algorithm>
#include <map>

#include "c2r/core/error.h"
#include "c2r/import/counts_internal.h"
#include "c2r/import/formats_internal.h"
#include "c2r/import/json_inputs_internal.h"
#include "c2r/import/torch/recorder_internal.h"
#include "c2r/io/json.h"
#include "c2r/routing/routing.h"

namespace c2r {
namespace {

using namespace counts;  // NOLINT(google-build-using-namespace)

// Adds one step's counts [num_layers, num_experts] to `layers`; the first step sets both extents.
void add_step(const Json& step, const std::string& place, std::vector<Loads>& layers) {
  const auto& rows = json_array(step, "logical_count", place);
  C2R_REQUIRE(!rows.empty() && rows.size() <= kMaxLayers, kInvalidFile,
              "{}: has {} layers, but must have from 1 to {}", place, rows.size(), kMaxLayers);
  if (layers.empty()) layers.resize(rows.size());
  C2R_REQUIRE(rows.size() == layers.size(), kInvalidFile, "{}: has {} layers, but step 0 has {}",
              place, rows.size(), layers.size());
  for (std::size_t layer = 0; layer < rows.size(); ++layer) {
    const std::string where = fmt::format("{}, layer {}", place, layer);
    const auto& counts = json_array(rows[layer], "the row of counts", where);
    C2R_REQUIRE(!counts.empty() && counts.size() <= kMaxExperts, kInvalidFile,
                "{}: has {} experts, but must have from 1 to {}", where, counts.size(),
                kMaxExperts);
    if (layers[layer].empty()) layers[layer].resize(counts.size());
    C2R_REQUIRE(counts.size() == layers[layer].size() && counts.size() == layers[0].size(),
                kInvalidFile, "{}: has {} experts, but the rows before it have {}", where,
                counts.size(), layers[0].size());
    for (std::size_t e = 0; e < counts.size(); ++e) {
      counts::add(count_of(counts[e], where), layers[layer][e], where);
    }
  }
}

// Adds the counts of a JSON value to `all`.
void add_json(const Json& json, const std::string& path, std::vector<Loads>& all) {
  const auto& outer = json_array(json_at(json, "logical_count", path), "logical_count", path);
  const bool has_steps =
      !outer.empty() && outer[0].is_array() && !outer[0].empty() && outer[0][0].is_array();
  if (!has_steps) return add_step(json["logical_count"], path, all);
  for (std::size_t step = 0; step < outer.size(); ++step) {
    add_step(outer[step], fmt::format("{}, step {}", path, step), all);
  }
}

CollaborationStatistics read_sglang_loads(const ImportRequest& request) {
  const std::string path = request.inputs[0].string();
  std::vector<Loads> all;
  if (torch::is_zip(request.inputs[0])) {
    all = torch::read_recorder_loads(request);
  } else {
    for_each_json(request, is_list_of_objects,
                  [&](const Json& json, const std::string& place) { add_json(json, place, all); });
  }
  std::map<std::int32_t, Loads> layers;
  for (std::size_t layer = 0; layer < all.size(); ++layer) {
    if (std::ranges::all_of(all[layer], [](std::int64_t load) { return load == 0; })) continue;
    layers.emplace(static_cast<std::int32_t>(layer), all[layer]);
  }
  C2R_REQUIRE(!layers.empty(), kInvalidFile,
              "{}: every count is 0; was the recording started before the requests?", path);
  auto statistics = statistics_of_loads(request, layers,
                                        {.model = request.model,
                                         .num_experts = static_cast<std::int32_t>(all[0].size()),
                                         .top_k = *request.top_k},
                                        path);
  require_layers(request, statistics);
  return statistics;
}

}  // namespace

ImportFormat import_rows::sglang_loads() {
  return {
      .name = "sglang-loads",
      .summary = "SGLang's recorder, any mode, .pt or logical_count as JSON: loads without pairs",
      .makes = ImportKind::kStatistics,
      .needs = {ImportField::kTopK},
      .uses = {ImportField::kNumExperts, ImportField::kLayerIndices},
      .endings = {".pt", ".json", ".jsonl"},
      .statistics = read_sglang_loads};
}

}  // namespace c2r
