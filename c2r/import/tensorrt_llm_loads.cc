// TensorRT-LLM's EXPERT_STATISTIC_PATH: a folder with `meta_info.json` and `rank0.safetensors`,
// `rank1.safetensors`, ... of tensors "{iteration}_{layer}", I64 [num_experts], which are added up.
// Other files are ignored. A missing rank is an error. With a load balancer they are loads of
// slots, which its file, the request's `placement`, turns into those of experts.
#include <algorithm>
#include <map>
#include <optional>

#include "c2r/core/error.h"
#include "c2r/core/parse_integer.h"
#include "c2r/core/shown.h"
#include "c2r/import/counts_internal.h"
#include "c2r/import/formats_internal.h"
#include "c2r/io/file.h"
#include "c2r/io/json.h"
#include "c2r/io/safetensors.h"
#include "c2r/plan/engines/engine.h"
#include "c2r/routing/routing.h"

namespace c2r {
namespace {

using namespace counts;  // NOLINT(google-build-using-namespace)

// "rank12.safetensors" -> 12.
std::optional<std::int32_t> rank_of_name(std::string_view name) {
  constexpr std::string_view kPrefix = "rank", kSuffix = ".safetensors";
  if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix)) return std::nullopt;
  if (name.size() <= kPrefix.size() + kSuffix.size()) return std::nullopt;
  name.remove_prefix(kPrefix.size());
  name.remove_suffix(kSuffix.size());
  const auto rank = parse_integer(name);
  if (!rank || *rank < 0 || *rank > INT32_MAX) return std::nullopt;
  return static_cast<std::int32_t>(*rank);
}

std::map<std::int32_t, std::filesystem::path> rank_files(const std::filesystem::path& folder) {
  std::error_code error;
  std::map<std::int32_t, std::filesystem::path> files;
  for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    const auto rank = rank_of_name(entry->path().filename().native());
    if (!rank) continue;
    const auto [other, is_new] = files.emplace(*rank, entry->path());
    C2R_REQUIRE(is_new, kInvalidFile, "{}: both {} and {} are of rank {}", folder.string(),
                other->second.filename().string(), entry->path().filename().string(), *rank);
  }
  C2R_REQUIRE(!error, kInvalidFile, "cannot read the folder '{}': {}", folder.string(),
              error.message());
  C2R_REQUIRE(!files.empty(), kInvalidFile, "{}: has no rank0.safetensors", folder.string());
  C2R_REQUIRE(files.rbegin()->first == std::ssize(files) - 1, kInvalidFile,
              "{}: has {} files of ranks up to {}, so a rank's file is missing", folder.string(),
              files.size(), files.rbegin()->first);
  return files;
}

// "7_12", iteration and layer -> 12.
std::int32_t layer_of_name(std::string_view name, const std::string& path) {
  const std::size_t between = std::min(name.find('_'), name.size() - 1);
  const auto iteration = parse_integer(name.substr(0, between));
  const auto layer = parse_integer(name.substr(between + 1));
  C2R_REQUIRE(iteration && *iteration >= 0 && layer && 0 <= *layer && *layer <= INT32_MAX,
              kInvalidFile, "{}: tensor '{}' is not named ITERATION_LAYER", path, shown(name));
  return static_cast<std::int32_t>(*layer);
}

// Turns loads of slots, which a load balancer counts, into those of experts.
void fold_slots(const ImportRequest& request, std::int32_t num_ranks, const std::string& meta_path,
                std::map<std::int32_t, Loads>& layers, TraceHeader& header) {
  const std::int32_t num_slots = header.num_experts;
  if (request.placement.empty()) {
    C2R_REQUIRE(request.num_experts == 0 || request.num_experts == num_slots, kInvalidFile,
                "{}: num_experts is {}, but --num-experts is {}: with a load balancer TensorRT-LLM "
                "counts slots; give its file with --placement",
                meta_path, num_slots, request.num_experts);
    add_note(request,
             fmt::format("taken for granted: loads of {} experts; with a load balancer they "
                         "are of slots, and its file has to be given with --placement",
                         num_slots));
    return;
  }
  C2R_REQUIRE(request.num_experts > 0, kInvalidArgument,
              "--placement needs --num-experts, for {} has the number of slots", meta_path);
  MapShape shape{.num_experts = request.num_experts, .ep_size = num_ranks};
  for (const auto& [layer, loads] : layers) shape.layer_indices.push_back(layer);
  const std::string path = request.placement.string();
  const auto placements = read_placements(find_export_target("tensorrt-llm").file,
                                          read_text_file(request.placement), shape, path);
  for (std::size_t at = 0; auto& [layer, loads] : layers) {
    const PlanLayer& placed = placements[at++];
    const auto experts = with_wasted_slots(placed.placement, placed.wasted_slots);
    const auto slots = experts.all();
    C2R_REQUIRE(slots.size() == loads.size(), kInvalidFile,
                "{}: layer {} has {} slots, but {} were counted", path, layer, slots.size(),
                loads.size());
    Loads of_experts(static_cast<std::size_t>(request.num_experts));
    for (std::size_t slot = 0; slot < slots.size(); ++slot) {
      counts::add(loads[slot], of_experts[index(slots[slot])], path);
    }
    loads = std::move(of_experts);
  }
  header.num_experts = request.num_experts;
}

CollaborationStatistics read_tensorrt_llm_loads(const ImportRequest& request) {
  const std::filesystem::path& folder = request.inputs[0];
  const std::string meta_path = (folder / "meta_info.json").string();
  const Json meta = read_json_file(meta_path);
  const auto integer = [&](const char* key, std::int32_t max) {
    return static_cast<std::int32_t>(
        json_integer(json_at(meta, key, meta_path), 1, max, key, meta_path));
  };
  TraceHeader header{.model = request.model,
                     .num_experts = integer("num_experts", kMaxExperts),
                     .top_k = integer("num_experts_per_token", kMaxTopK)};
  C2R_REQUIRE(request.top_k.value_or(header.top_k) == header.top_k, kInvalidFile,
              "{}: num_experts_per_token is {}, but top_k is given as {}", meta_path, header.top_k,
              *request.top_k);
  std::map<std::int32_t, Loads> layers;
  const auto files = rank_files(folder);
  for (const auto& [rank, path] : files) {
    const SafetensorsFile file(path);
    for (const auto& [name, view] : file.tensors()) {
      const std::int64_t shape[] = {header.num_experts};
      const auto counts = file.elements<std::int64_t>(name, shape);
      Loads& loads = layers[layer_of_name(name, file.path())];
      loads.resize(counts.size());
      for (std::size_t e = 0; e < counts.size(); ++e) {
        add(counts[e], loads[e], fmt::format("{}: tensor '{}'", file.path(), name));
      }
    }
  }
  fold_slots(request, static_cast<std::int32_t>(files.size()), meta_path, layers, header);
  auto statistics = statistics_of_loads(request, layers, header, folder.string());
  require_layers(request, statistics);
  return statistics;
}

}  // namespace

ImportFormat import_rows::tensorrt_llm_loads() {
  return {.name = "tensorrt-llm-loads",
          .summary = "a folder of TensorRT-LLM's rank*.safetensors: loads without pairs",
          .makes = ImportKind::kStatistics,
          .needs = {},
          .uses = {ImportField::kNumExperts, ImportField::kTopK, ImportField::kLayerIndices,
                   ImportField::kPlacement},
          .takes_many_inputs = false,
          .statistics = read_tensorrt_llm_loads};
}

}  // namespace c2r
