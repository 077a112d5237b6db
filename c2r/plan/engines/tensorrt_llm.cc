// Writes and reads the yaml of TensorRT-LLM's load balancer: `num_slots`, `layer_updates_per_iter`
// and `initial_global_assignments` by the model's layer index. The reader takes them from a file of
// their own, or from `moe_config: load_balancer:` of the engine's configuration.
#include <fmt/format.h>

#include "c2r/core/error.h"
#include "c2r/io/json.h"
#include "c2r/plan/engines/engine_rows_internal.h"
#include "c2r/plan/engines/exchange_kernels_internal.h"
#include "c2r/plan/engines/placement_files_internal.h"
#include "c2r/plan/engines/yaml_internal.h"

namespace c2r {
namespace {

using namespace placement_files;  // NOLINT(google-build-using-namespace)

// The load balancer's object: the document itself, or a part of the engine's whole configuration.
const Json& balancer_of(const Json& yaml, std::string_view place) {
  const Json* const moe_config = json_find(yaml, "moe_config");
  if (moe_config == nullptr) return yaml;
  const Json& balancer = json_at(*moe_config, "load_balancer", place);
  C2R_REQUIRE(!balancer.is_string(), kInvalidFile,
              "{}: names the load balancer's file {}; give that file instead", place,
              shown_value(balancer));
  return balancer;
}

std::string write_tensorrt_llm_yaml(const Plan& plan, const ExportOptions&) {
  std::string text =
      fmt::format("num_slots: {}\nlayer_updates_per_iter: 0\ninitial_global_assignments:\n",
                  num_slots_of_each_layer(plan));
  for (const PlanLayer& layer : plan.layers) {
    text += fmt::format("  {}: {}\n", layer.layer_index, slots_to_json(layer).dump());
  }
  return text;
}

std::vector<Placement> read_tensorrt_llm_yaml(std::string_view text, const MapShape& shape,
                                              std::string_view place,
                                              std::vector<std::string>& /*notes*/) {
  const Json document = parse_yaml(text, place);
  const Json& yaml = balancer_of(document, place);
  json_check_keys(yaml, {"num_slots", "layer_updates_per_iter", "initial_global_assignments"},
                  "the yaml", place);
  const auto num_slots =
      json_integer(json_at(yaml, "num_slots", place), 1, INT32_MAX, "num_slots", place);
  const Json* const updates = json_find(yaml, "layer_updates_per_iter");
  if (updates != nullptr) json_integer(*updates, 0, INT32_MAX, "layer_updates_per_iter", place);
  C2R_REQUIRE(json_find(yaml, "initial_global_assignments") != nullptr, kInvalidFile,
              "{}: has no initial_global_assignments, thus no placement: TensorRT-LLM starts with "
              "one of its own",
              place);
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

// It takes the first of these backends that runs on the machine (communication_factory.py at
// 17d5bd861cdd), or what TRTLLM_FORCE_COMM_METHOD names: NVLINK_ONE_SIDED or NVLINK_TWO_SIDED,
// which send the same copies, NCCL_EP, DEEPEP, DEEPEPLOWLATENCY and ALLGATHER.
constexpr ExchangeKernel kTensorrtLlmAllToAll[] = {
    {.title = "NVLink all-to-all",
     .mode = CopyMode::kPerRank,
     .source = "NVIDIA/TensorRT-LLM cpp/tensorrt_llm/kernels/communicationKernels/"
               "moeAlltoAllKernels.cu at 439e0799ca96"}};
constexpr ExchangeKernel kTensorrtLlmNcclEp[] = {kNcclEpRankMajor};
constexpr ExchangeKernel kTensorrtLlmDeepEp[] = {kDeepEpNormal};
constexpr ExchangeKernel kTensorrtLlmDeepEpLowLatency[] = {kDeepEpLowLatency};
constexpr ExchangeKernel kTensorrtLlmAllGather[] = {kAllGather};
constexpr ExchangeKernel kTensorrtLlmMegaMoe[] = {
    with_setting(kMegaMoe, "with moe_config backend MEGAMOE_DEEPGEMM")};

constexpr Backend kTensorrtLlmBackends[] = {
    {"alltoall", kTensorrtLlmAllToAll},   {"nccl_ep", kTensorrtLlmNcclEp},
    {"deepep", kTensorrtLlmDeepEp},       {"deepep_low_latency", kTensorrtLlmDeepEpLowLatency},
    {"allgather", kTensorrtLlmAllGather}, {"megamoe", kTensorrtLlmMegaMoe}};

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
