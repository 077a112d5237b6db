// Writes and reads the yaml of TensorRT-LLM's load balancer: `num_slots`, `layer_updates_per_iter`
// and `initial_global_assignments` by the model's layer index. The reader takes the subset of yaml
// that the writer writes: one key a line, lists in brackets on one line, comments.
#include <fmt/format.h>

#include <algorithm>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"
#include "c2r/io/json.h"
#include "c2r/plan/engines/engine_rows_internal.h"
#include "c2r/plan/engines/exchange_kernels_internal.h"
#include "c2r/plan/engines/placement_files_internal.h"
#include "c2r/routing/routing.h"

namespace c2r {
namespace {

using namespace placement_files;  // NOLINT(google-build-using-namespace)

// Parses the yaml that the writer writes, as a JSON object.
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

std::string write_tensorrt_llm_yaml(const Plan& plan, const ExportOptions&) {
  std::string text =
      fmt::format("num_slots: {}\nlayer_updates_per_iter: 0\ninitial_global_assignments:\n",
                  num_slots_of_each_layer(plan));
  for (const PlanLayer& layer : plan.layers) {
    text += fmt::format("  {}: {}\n", layer.layer_index, slots_to_json(layer.placement).dump());
  }
  return text;
}

std::vector<Placement> read_tensorrt_llm_yaml(std::string_view text, const MapShape& shape,
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

std::string tensorrt_llm_usage(const Plan&, std::string_view path) {
  return fmt::format("moe_config: {{backend: WIDEEP, load_balancer: {}}}", path);
}

constexpr PlacementFile kTensorrtLlmFiles[] = {{.name = "tensorrt-llm",
                                                .suffix = ".yaml",
                                                .usage = tensorrt_llm_usage,
                                                .write = write_tensorrt_llm_yaml,
                                                .read = read_tensorrt_llm_yaml}};

using namespace exchange_kernels;  // NOLINT(google-build-using-namespace)

constexpr ExchangeKernel kTensorrtLlmAllToAll[] = {
    {.title = "NVLink all-to-all",
     .mode = CopyMode::kPerRank,
     .source = "NVIDIA/TensorRT-LLM kernels/communicationKernels/moeAlltoAllKernels.cu"}};
constexpr ExchangeKernel kTensorrtLlmAllGather[] = {kAllGather};
constexpr ExchangeKernel kTensorrtLlmMegaMoe[] = {
    with_setting(kMegaMoe, "with moe_config backend MEGAMOE_DEEPGEMM")};

constexpr Backend kTensorrtLlmBackends[] = {{"alltoall", kTensorrtLlmAllToAll},
                                            {"allgather", kTensorrtLlmAllGather},
                                            {"megamoe", kTensorrtLlmMegaMoe}};

}  // namespace

EngineRow engine_rows::tensorrt_llm() {
  return {.name = "tensorrt-llm",
          .title = "TensorRT-LLM",
          .files = kTensorrtLlmFiles,
          .backends = kTensorrtLlmBackends,
          // It gives an expert's tokens to its replicas in turn, which needs as many copies in
          // expectation as a random choice.
          .replica_rule = ReplicaRule::kRandom};
}

}  // namespace c2r
