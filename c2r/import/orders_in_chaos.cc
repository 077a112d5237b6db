// The JSON of "Orders in Chaos" (core12345/MoE_expert_selection_trace): a list of forward steps,
// the first of them the prefill, each an object from the layer to its tokens' experts, or to null
// for a dense layer.
#include <map>

#include "c2r/core/error.h"
#include "c2r/core/parse_integer.h"
#include "c2r/core/shown.h"
#include "c2r/import/formats_internal.h"
#include "c2r/import/json_inputs_internal.h"
#include "c2r/import/trace_builder_internal.h"

namespace c2r {
namespace {

using Step = std::map<std::int32_t, const Json::array_t*>;  // MoE layer -> [num_tokens] of ids

Step parse_step(const Json& json, const std::string& place) {
  C2R_REQUIRE(json.is_object(), kInvalidFile, "{}: must be an object from layers to experts",
              place);
  Step step;
  for (const auto& [key, rows] : json.items()) {
    const auto index = parse_integer(key);
    C2R_REQUIRE(index && 0 <= *index && *index <= INT32_MAX, kInvalidFile,
                "{}: '{}' is not the index of a layer", place, shown(key));
    const auto layer = static_cast<std::int32_t>(*index);
    if (rows.is_null()) continue;  // a dense layer
    const bool is_new =
        step.emplace(layer, &json_array(rows, fmt::format("layer {}", layer), place)).second;
    C2R_REQUIRE(is_new, kInvalidFile, "{}: has layer {} twice", place, layer);
  }
  return step;
}

SequenceChoices parse_chaos_sequence(const Json& json, const std::string& path,
                                     TraceBuilder& builder) {
  SequenceChoices sequence;
  std::int64_t num_tokens = 0;
  const ImportRequest& request = builder.request();
  const auto& steps = json_array(json, "the list of steps", path);
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const std::string place = fmt::format("{}, step {}", path, i);
    const Step step = parse_step(steps[i], place);
    std::vector<std::int32_t> layers;
    for (const auto& [layer, rows] : step) layers.push_back(layer);
    if (i == 0) {
      C2R_REQUIRE(!layers.empty(), kInvalidFile, "{}: has no MoE layer", place);
      sequence.layer_indices = layers;
      sequence.topk_idx.resize(layers.size());
    }
    C2R_REQUIRE(layers == sequence.layer_indices, kInvalidFile,
                "{}: has {} MoE layers, which are not the {} of step 0", place, layers.size(),
                sequence.layer_indices.size());
    const std::size_t num_rows = step.begin()->second->size();
    const Phase phase = i == 0 ? Phase::kPrefill : Phase::kDecode;  // the prompt is step 0
    for (std::size_t layer = 0; const auto& [index, rows] : step) {
      C2R_REQUIRE(rows->size() == num_rows, kInvalidFile,
                  "{}: layer {} has {} tokens, but layer {} has {}", place, index, rows->size(),
                  step.begin()->first, num_rows);
      const bool is_wanted = request.phase.value_or(phase) == phase;
      for (std::size_t t = 0; t < num_rows && is_wanted; ++t) {
        const TokenPlace token{path, index, num_tokens + static_cast<std::int64_t>(t)};
        builder.append_ids((*rows)[t], 0, token, sequence.topk_idx[layer]);
      }
      ++layer;
    }
    num_tokens += static_cast<std::int64_t>(num_rows);
  }
  return sequence;
}

ImportResult write_orders_in_chaos_trace(const ImportRequest& request) {
  TraceBuilder builder(request);
  // A request is a list of steps, so a list of lists has several.
  const auto is_list = [](const Json& array) { return array[0].is_array(); };
  for_each_json(request, is_list, [&](const Json& json, const std::string& place) {
    builder.add_sequence(parse_chaos_sequence(json, place, builder), place);
  });
  return builder.finish();
}

}  // namespace

ImportFormat import_rows::orders_in_chaos() {
  return {.name = "orders-in-chaos",
          .summary = "JSON list of steps of core12345/MoE_expert_selection_trace",
          .makes = ImportKind::kTrace,
          .needs = {ImportField::kNumExperts},
          .uses = {ImportField::kTopK, ImportField::kLayerIndices, ImportField::kPhase},
          .endings = {".json", ".jsonl"},
          .write_trace = write_orders_in_chaos_trace};
}

}  // namespace c2r
