// Writes and reads a permutation of experts by the model's layer index, "old_of_new" and its
// inverse "new_of_old", for engines that place experts contiguously, as Megatron does.
#include <fmt/format.h>

#include "c2r/core/error.h"
#include "c2r/io/json.h"
#include "c2r/plan/engines/engine_rows_internal.h"
#include "c2r/plan/engines/exchange_kernels_internal.h"
#include "c2r/plan/engines/placement_files_internal.h"

namespace c2r {
namespace {

using namespace placement_files;  // NOLINT(google-build-using-namespace)

std::string write_permutation(const Plan& plan, const ExportOptions&) {
  Json json = {{"num_experts", plan.num_experts},
               {"old_of_new", Json::object()},
               {"new_of_old", Json::object()}};
  for (const PlanLayer& layer : plan.layers) {
    const std::string key = std::to_string(layer.layer_index);
    C2R_REQUIRE(std::ssize(layer.placement.slots.all()) == plan.num_experts, kUnsupported,
                "layer {} has {} slots for {} experts, but a permutation cannot express replicas",
                key, layer.placement.slots.all().size(), plan.num_experts);
    json["old_of_new"][key] = slots_to_json(layer);
    std::vector<std::int64_t> new_of_old;
    for (const auto& slot : inverse_of(layer, 1).first) {
      new_of_old.push_back(slot[0].get<std::int64_t>());
    }
    json["new_of_old"][key] = new_of_old;
  }
  return json.dump() + "\n";
}

std::vector<Placement> read_permutation(std::string_view text, const MapShape& shape,
                                        std::string_view place,
                                        std::vector<std::string>& /*notes*/) {
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

std::string permutation_usage(const Plan&, std::string_view path) {
  return fmt::format("router rows, biases and experts of a checkpoint permuted as {} says", path);
}

constexpr std::string_view kPermutationCautions[] = {
    "permute group-limited models (DeepSeek) only within expert groups or groups as units, or "
    "their router chooses other experts"};

constexpr PlacementFile kMegatronFiles[] = {
    {.name = "permutation",
     .suffix = ".json",
     .usage = permutation_usage,
     .write = write_permutation,
     .read = read_permutation,
     .cautions = kPermutationCautions,
     .has_slots_by_layer = true,
     .rollback = "load the checkpoint that was not permuted"}};

using namespace exchange_kernels;  // NOLINT(google-build-using-namespace)

constexpr ExchangeKernel kMegatronAllGather[] = {kAllGather};
constexpr ExchangeKernel kMegatronAllToAll[] = {
    read_in(kTorchAllToAll,
            "NVIDIA/Megatron-LM megatron/core/transformer/moe/token_dispatcher.py, "
            "MoEAlltoAllTokenDispatcher")};
constexpr ExchangeKernel kMegatronFlex[] = {
    with_setting(kDeepEpNormal, "with --moe-flex-dispatcher-backend deepep"),
    with_setting(kHybridEp, "with --moe-flex-dispatcher-backend hybridep"),
    // TransformerEngine's ep_backend.cpp asks for the expert-major layout.
    with_setting(kNcclEpHighThroughputExpertMajor, "with --moe-flex-dispatcher-backend ncclep")};

constexpr Backend kMegatronBackends[] = {
    {"allgather", kMegatronAllGather}, {"alltoall", kMegatronAllToAll}, {"flex", kMegatronFlex}};

}  // namespace

EngineRow engine_rows::megatron() {
  return {.name = "megatron",
          .title = "Megatron-Core",
          .files = kMegatronFiles,
          .backends = kMegatronBackends};
}

}  // namespace c2r
