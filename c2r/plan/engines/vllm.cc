// Writes and reads vLLM's placement files, which no release reads yet. That of pull request 41141
// is one JSON line with "initial_global_assignments" by MoE layer ordinal, and that of pull request
// 49572 is [num_layers][num_slots], or [num_slots] for every layer.
#include <fmt/format.h>

#include <algorithm>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"
#include "c2r/io/json.h"
#include "c2r/plan/engines/engine_rows_internal.h"
#include "c2r/plan/engines/exchange_kernels_internal.h"
#include "c2r/plan/engines/placement_files_internal.h"

namespace c2r {
namespace {

using namespace placement_files;  // NOLINT(google-build-using-namespace)

std::string write_vllm_41141(const Plan& plan, const ExportOptions&) {
  const std::int64_t num_slots = num_slots_of_each_layer(plan);
  Json record = {{"record_type", "eplb_initial_mapping"},
                 {"version", 1},
                 {"num_redundant_experts", num_slots - plan.num_experts},
                 {"num_slots", num_slots},
                 {"initial_global_assignments", Json::object()}};
  for (std::size_t l = 0; l < plan.layers.size(); ++l) {
    record["initial_global_assignments"][std::to_string(l)] = slots_to_json(plan.layers[l]);
  }
  return record.dump() + "\n";
}

std::vector<Placement> placements_of_record(const Json& json, const MapShape& shape,
                                            std::string_view place) {
  json_check_keys(json,
                  {"record_type", "version", "num_redundant_experts", "num_slots",
                   "initial_global_assignments"},
                  "the record", place);
  json_integer(json_at(json, "version", place), 1, 1, "version", place);
  const auto num_slots =
      json_integer(json_at(json, "num_slots", place), 1, INT32_MAX, "num_slots", place);
  const std::int64_t redundant = num_slots - shape.num_experts;
  json_integer(json_at(json, "num_redundant_experts", place), redundant, redundant,
               "num_redundant_experts", place);
  auto placements = placements_by_key(json_at(json, "initial_global_assignments", place),
                                      ordinals(shape), shape, place);
  for (const Placement& placement : placements) require_slots(placement, num_slots, place);
  return placements;
}

// The records of a file: one on each line, or one over several lines.
std::vector<std::pair<std::string_view, std::string>> records_of(std::string_view text,
                                                                 std::string_view place) {
  std::vector<std::pair<std::string_view, std::string>> records;  // text and place
  for (std::size_t begin = 0, number = 1; begin < text.size(); ++number) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = text.substr(begin, end - begin);
    begin = end + 1;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    if (records.empty() && !Json::accept(line)) return {{text, std::string(place)}};
    records.emplace_back(line, fmt::format("{}: line {}", place, number));
  }
  return records;
}

// Records of loads may stand beside the mapping; of several mappings the last one counts.
std::vector<Placement> read_vllm_41141(std::string_view text, const MapShape& shape,
                                       std::string_view place, std::vector<std::string>& notes) {
  std::vector<Placement> placements;
  std::size_t num_mappings = 0, num_others = 0;
  for (const auto& [record, here] : records_of(text, place)) {
    const Json json = parse_json(record, here);
    const std::string& type = json_string(json_at(json, "record_type", here), "record_type", here);
    if (type.starts_with("eplb_load_")) {
      ++num_others;
      continue;
    }
    C2R_REQUIRE(type == "eplb_initial_mapping", kInvalidFile,
                "{}: record_type is '{}', not 'eplb_initial_mapping'", here, shown(type));
    placements = placements_of_record(json, shape, here);
    ++num_mappings;
  }
  C2R_REQUIRE(num_mappings > 0, kInvalidFile,
              "{}: has no record 'eplb_initial_mapping', thus no placement", place);
  if (num_mappings > 1) {
    notes.push_back(fmt::format("read: the last of {} mappings", num_mappings));
  }
  if (num_others > 0) notes.push_back(fmt::format("left out: {} records of loads", num_others));
  return placements;
}

std::string write_vllm_49572(const Plan& plan, const ExportOptions&) {
  return all_slots_to_json(plan).dump() + "\n";
}

std::vector<Placement> read_vllm_49572(std::string_view text, const MapShape& shape,
                                       std::string_view place,
                                       std::vector<std::string>& /*notes*/) {
  const Json json = parse_json(text, place);
  const auto& rows = json_array(json, "the map", place);
  if (rows.empty() || rows[0].is_array()) return placements_of_rows(json, shape, "the map", place);
  return {static_cast<std::size_t>(shape.num_layers()),
          placement_of_row(json, shape, "the map", place)};
}

std::string vllm_usage(const Plan& plan, std::string_view option, std::string_view path) {
  return fmt::format(
      "--enable-expert-parallel --enable-eplb --eplb-config.num_redundant_experts {} "
      "--eplb-config.{} {}",
      num_redundant_slots(plan), option, path);
}

std::string vllm_41141_usage(const Plan& plan, std::string_view path) {
  return vllm_usage(plan, "initial_mapping_path", path) +
         " --eplb-config.disable_online_rebalancing true";
}

std::string vllm_49572_usage(const Plan& plan, std::string_view path) {
  return vllm_usage(plan, "initial_expert_map_path", path);
}

constexpr std::string_view kVllm41141Cautions[] = {
    "vLLM reads this file only with its pull request 41141 applied"};
constexpr std::string_view kVllm49572Cautions[] = {
    "vLLM reads this file only with its pull request 49572 applied",
    "vLLM's balancer replaces the placement every --eplb-config.step_interval steps, 3000 by "
    "default: give it more than you run"};

constexpr PlacementFile kVllmFiles[] = {{.name = "vllm-41141",
                                         .suffix = ".jsonl",
                                         .usage = vllm_41141_usage,
                                         .write = write_vllm_41141,
                                         .read = read_vllm_41141,
                                         .cautions = kVllm41141Cautions},
                                        {.name = "vllm-49572",
                                         .suffix = ".json",
                                         .usage = vllm_49572_usage,
                                         .write = write_vllm_49572,
                                         .read = read_vllm_49572,
                                         .cautions = kVllm49572Cautions}};

using namespace exchange_kernels;  // NOLINT(google-build-using-namespace)

constexpr ExchangeKernel kVllmAllGather[] = {kAllGather};
constexpr ExchangeKernel kVllmDeepEpNormal[] = {kDeepEpNormal};
constexpr ExchangeKernel kVllmDeepEpLowLatency[] = {kDeepEpLowLatency};
constexpr ExchangeKernel kVllmDeepEpV2[] = {kDeepEpV2Hybrid, kDeepEpV2Direct};
constexpr ExchangeKernel kVllmNixl[] = {kNixlLowLatency};
constexpr ExchangeKernel kVllmMori[] = {kMoriNormal};
constexpr ExchangeKernel kVllmMoriLowLatency[] = {kMoriInterNodeLowLatency};
constexpr ExchangeKernel kVllmFlashInfer[] = {kFlashInferOneSided};
constexpr ExchangeKernel kVllmFlashInferTwoSided[] = {kFlashInferTwoSided};
constexpr ExchangeKernel kVllmNcclEp[] = {kNcclEpHighThroughput, kNcclEpExpertMajor};
constexpr ExchangeKernel kVllmUccl[] = {kUcclNormal, kUcclLowLatency};

constexpr Backend kVllmBackends[] = {
    {"allgather_reducescatter", kVllmAllGather},
    {"deepep_high_throughput", kVllmDeepEpNormal},
    {"deepep_low_latency", kVllmDeepEpLowLatency},
    {"deepep_v2", kVllmDeepEpV2},
    {"nixl_ep", kVllmNixl},
    {"mori_high_throughput", kVllmMori},
    {"mori_low_latency", kVllmMoriLowLatency},
    {"flashinfer_nvlink_one_sided", kVllmFlashInfer},
    {"flashinfer_nvlink_two_sided", kVllmFlashInferTwoSided},
    {"nccl_ep", kVllmNcclEp},  // by pull request 46889
    {"uccl", kVllmUccl}};      // deepep_* with UCCL-EP in place of DeepEP

}  // namespace

EngineRow engine_rows::vllm() {
  return {.name = "vllm",
          .title = "vLLM",
          .files = kVllmFiles,
          .backends = kVllmBackends,
          // It chooses by a hash of the token's position, which needs as many copies in expectation
          // as a random choice.
          .replica_rule = ReplicaRule::kRandom};
}

}  // namespace c2r
