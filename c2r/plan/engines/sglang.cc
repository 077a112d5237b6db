// Writes and reads SGLang's `--init-expert-location`: {"physical_to_logical_map":
// [num_hidden_layers][num_slots]} and no other key, because SGLang passes keys on as arguments.
// There is a row for each dense layer, too, whose content is ignored.
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

// More than any model has; a map of them fits into memory.
constexpr std::int32_t kMaxHiddenLayers = 4096;

std::string write_sglang_map(const Plan& plan, const ExportOptions& options) {
  const std::int64_t num_slots = num_slots_of_each_layer(plan);
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
    rows[static_cast<std::size_t>(layer.layer_index)] = slots_to_json(layer);
  }
  return Json({{"physical_to_logical_map", rows}}).dump() + "\n";
}

std::vector<Placement> read_sglang_map(std::string_view text, const MapShape& shape,
                                       std::string_view place,
                                       std::vector<std::string>& /*notes*/) {
  const Json json = parse_json(text, place);
  C2R_REQUIRE(!json.is_object() || json.contains("physical_to_logical_map") ||
                  !json.contains("logical_count"),
              kInvalidFile,
              "{}: it has loads (logical_count), from which SGLang places by EPLB "
              "itself, and no placement",
              place);
  json_check_keys(json, {"physical_to_logical_map"}, "the map", place);
  const auto& rows =
      json_array(json_at(json, "physical_to_logical_map", place), "physical_to_logical_map", place);
  std::vector<Placement> placements;
  for (const std::int32_t layer : shape.layer_indices) {
    C2R_REQUIRE(layer < std::ssize(rows), kInvalidFile,
                "{}: the map has {} rows, but SGLang looks up row {}: rows count dense layers, too",
                place, rows.size(), layer);
    const auto row = static_cast<std::size_t>(layer);
    placements.push_back(placement_of_row(rows[row], shape, row_name(row), place));
    require_slots(placements.back(), placements[0].slots.rows() * placements[0].slots.cols(),
                  place);
  }
  return placements;
}

std::string sglang_usage(const Plan& plan, std::string_view path) {
  return fmt::format(
      "--ep-size {} --ep-num-redundant-experts {} --init-expert-location {} "
      "--ep-dispatch-algorithm static",
      plan.cluster.ep_size(), num_redundant_slots(plan), path);
}

constexpr std::string_view kSglangCautions[] = {
    "without --ep-dispatch-algorithm, some versions of SGLang skip the map and answer wrongly",
    "with --enable-eplb, SGLang replaces the placement while it runs"};

constexpr PlacementFile kSglangFiles[] = {{.name = "sglang",
                                           .suffix = ".json",
                                           .usage = sglang_usage,
                                           .write = write_sglang_map,
                                           .read = read_sglang_map,
                                           .cautions = kSglangCautions,
                                           .has_hidden_layer_rows = true}};

using namespace exchange_kernels;  // NOLINT(google-build-using-namespace)

constexpr std::string_view kDecodes = "in --deepep-mode low_latency, or auto while it decodes";

constexpr ExchangeKernel kSglangNone[] = {kAllGather};
constexpr ExchangeKernel kSglangDeepEp[] = {kDeepEpNormal,
                                            with_setting(kDeepEpLowLatency, kDecodes)};
constexpr ExchangeKernel kSglangDeepEpV2[] = {
    with_setting(kDeepEpV2Hybrid, "in --deepep-v2-mode hybrid"),
    with_setting(kDeepEpV2Direct, "in --deepep-v2-mode direct")};
constexpr ExchangeKernel kSglangMooncake[] = {kMooncake};
constexpr ExchangeKernel kSglangNixl[] = {kNixlLowLatency};
constexpr ExchangeKernel kSglangMori[] = {
    kMoriNormal, with_setting(kMoriAsync, "in --deepep-mode low_latency or auto"),
    with_setting(kMoriInterNodeLowLatency,
                 "for at most 256 tokens a rank on several nodes, in --deepep-mode normal")};
constexpr ExchangeKernel kSglangFuseEp[] = {
    {.title = "FusedDeepMoe",
     .source = "sgl-project/sglang srt/layers/moe/token_dispatcher/fuseep.py",
     .verdict = kFusedVerdict}};
constexpr ExchangeKernel kSglangFlashInfer[] = {
    read_in(kFlashInferOneSided,
            "sgl-project/sglang srt/layers/moe/token_dispatcher/flashinfer.py "
            "and moeAlltoAllDispatch.cu of FlashInfer at 16da4acbf18c")};
constexpr ExchangeKernel kSglangMegaMoe[] = {kMegaMoe};
constexpr ExchangeKernel kSglangFlashInferMegaMoe[] = {
    {.title = "FlashInfer Mega MoE",
     .source = "sgl-project/sglang srt/layers/moe/token_dispatcher/standard.py",
     .verdict = kFusedVerdict}};
constexpr ExchangeKernel kSglangPplx[] = {kPplx};
constexpr ExchangeKernel kSglangNcclEp[] = {kNcclEpExpertMajor, kNcclEpRankMajor};
constexpr ExchangeKernel kSglangUccl[] = {kUcclNormal, with_setting(kUcclLowLatency, kDecodes)};

constexpr Backend kSglangBackends[] = {
    {"none", kSglangNone},
    {"deepep", kSglangDeepEp},
    {"deepep_v2", kSglangDeepEpV2},
    {"mooncake", kSglangMooncake},
    {"nixl", kSglangNixl},
    {"mori", kSglangMori},
    {"ascend_fuseep", kSglangFuseEp},
    {"flashinfer", kSglangFlashInfer},
    {"megamoe", kSglangMegaMoe},
    {"flashinfer_megamoe", kSglangFlashInferMegaMoe},
    {"pplx", kSglangPplx},
    {"nccl_ep", kSglangNcclEp},  // by a pull request
    {"uccl", kSglangUccl}};      // --moe-a2a-backend deepep with UCCL-EP in place of DeepEP

}  // namespace

EngineRow engine_rows::sglang() {
  return {.name = "sglang",
          .title = "SGLang",
          .files = kSglangFiles,
          .backends = kSglangBackends,
          // With --ep-dispatch-algorithm static, which is part of usage().
          .replica_rule = ReplicaRule::kLocalFirst};
}

}  // namespace c2r
