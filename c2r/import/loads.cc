#include "c2r/import/loads.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <optional>

#include "c2r/collaboration/limits.h"
#include "c2r/core/error.h"
#include "c2r/core/parse_integer.h"
#include "c2r/core/shown.h"
#include "c2r/io/json.h"
#include "c2r/io/npy.h"
#include "c2r/io/safetensors.h"
#include "c2r/routing/routing.h"

namespace c2r {
namespace {

using Loads = std::vector<std::int64_t>;  // [num_experts]

void add(std::int64_t count, std::int64_t& sum, std::string_view place) {
  C2R_REQUIRE(count >= 0, kInvalidFile, "{}: has the count {}, but counts must not be negative",
              place, count);
  C2R_REQUIRE(!__builtin_add_overflow(sum, count, &sum), kInvalidFile,
              "{}: the counts add up to more than 2^63 - 1", place);
}

// Sets a layer's diagonal and number of tokens.
void set_loads(const Loads& loads, std::size_t layer, const std::string& place,
               CollaborationStatistics& statistics) {
  std::int64_t sum = 0;
  for (const std::int64_t load : loads) add(load, sum, place);
  const std::int64_t top_k = statistics.header.top_k;
  C2R_REQUIRE(sum % top_k == 0, kInvalidFile,
              "{}: the loads add up to {}, which is not a multiple of top_k = {}", place, sum,
              top_k);
  C2R_REQUIRE(sum / top_k <= kMaxCountedTokens, kInvalidFile,
              "{}: the loads are of {} tokens, but may be of at most {}", place, sum / top_k,
              kMaxCountedTokens);
  statistics.num_tokens[layer] = sum / top_k;
  for (std::size_t e = 0; e < loads.size(); ++e) {
    C2R_REQUIRE(loads[e] <= sum / top_k, kInvalidFile,
                "{}: expert {} has the load {}, but the layer saw {} tokens of {} experts each",
                place, e, loads[e], sum / top_k, top_k);
    const auto expert = static_cast<std::int64_t>(e);
    statistics.coactivation[layer](expert, expert) = loads[e];
  }
}

CollaborationStatistics statistics_of(const std::map<std::int32_t, Loads>& layers,
                                      TraceHeader header, const std::string& path) {
  for (const auto& [layer, loads] : layers) header.layer_indices.push_back(layer);
  check_header(header, path);
  auto statistics = empty_statistics(header, /*has_pairs=*/false);
  for (std::size_t at = 0; const auto& [layer, loads] : layers) {
    set_loads(loads, at++, fmt::format("{}, layer {}", path, layer), statistics);
  }
  return statistics;
}

void require_layers(const LoadsRequest& request, const CollaborationStatistics& statistics) {
  C2R_REQUIRE(
      request.layer_indices.empty() || request.layer_indices == statistics.header.layer_indices,
      kInvalidFile, "{}: has {} MoE layers, which are not the {} given", request.input.string(),
      statistics.num_layers(), request.layer_indices.size());
}

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
      add(json_integer(counts[e], 0, INT64_MAX, "a count", where), layers[layer][e], where);
    }
  }
}

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

// What a file of pair counts holds, after the checks of its shape.
TraceHeader coactivation_header(const NpyFile& file, const LoadsRequest& request) {
  const NpyView& array = file.array();
  const auto& shape = array.shape;
  C2R_REQUIRE(is_integer(array.dtype) && shape.size() == 3 && shape[1] == shape[2], kInvalidFile,
              "{}: is {} {}, but must be integers [num_layers, num_experts, num_experts]",
              file.path(), dtype_name(array.dtype), shape_text(shape));
  C2R_REQUIRE(1 <= shape[0] && shape[0] <= kMaxLayers && shape[1] <= kMaxExperts, kInvalidFile,
              "{}: has {} layers of {} experts, but must have 1 to {} layers of at most {}",
              file.path(), shape[0], shape[1], kMaxLayers, kMaxExperts);
  C2R_REQUIRE(request.top_k >= 2, kInvalidArgument,
              "top_k is {}, but tokens with co-activated experts have at least 2", request.top_k);
  TraceHeader header{.model = request.model,
                     .num_experts = static_cast<std::int32_t>(shape[1]),
                     .top_k = request.top_k,
                     .layer_indices = request.layer_indices};
  if (header.layer_indices.empty()) {
    header.layer_indices.resize(static_cast<std::size_t>(shape[0]));
    std::iota(header.layer_indices.begin(), header.layer_indices.end(), 0);
  }
  C2R_REQUIRE(header.num_layers() == shape[0], kInvalidFile,
              "{}: has {} layers, but {} layer indices were given", file.path(), shape[0],
              header.num_layers());
  check_header(header, file.path());
  return header;
}

// The pairs of one layer of `array`: symmetric, and nothing on the diagonal.
void read_pairs(const NpyView& array, std::int64_t layer, const std::string& place,
                CollaborationMatrix& counts) {
  const std::int64_t num_experts = array.shape[1];
  const auto at = [&](std::int64_t a, std::int64_t b) {
    return integer_at(array, (layer * num_experts + a) * num_experts + b);
  };
  for (std::int64_t a = 0; a < num_experts; ++a) {
    C2R_REQUIRE(at(a, a) == 0 || at(a, a) == -1, kInvalidFile,
                "{}: the diagonal has {} at expert {}, but must have 0 or -1", place, at(a, a), a);
    for (std::int64_t b = 0; b < num_experts; ++b) {
      if (a == b) continue;
      C2R_REQUIRE(at(a, b) == at(b, a), kInvalidFile,
                  "{}: is not symmetric: {} at [{}, {}], {} at [{}, {}]", place, at(a, b), a, b,
                  at(b, a), b, a);
      counts(a, b) = at(a, b);
    }
  }
}

// Each token of an expert is in top_k - 1 of its pairs.
std::int64_t load_of_row(const CollaborationMatrix& counts, std::int64_t expert, std::int32_t top_k,
                         const std::string& place) {
  const auto row = counts.row(expert);
  const std::int64_t others = top_k - 1;
  std::int64_t sum = 0;
  for (const std::int64_t count : row) add(count, sum, place);
  C2R_REQUIRE(sum % others == 0, kInvalidFile,
              "{}: the row of expert {} adds up to {}, which is not a multiple of top_k - 1 = "
              "{}; is top_k right?",
              place, expert, sum, others);
  const std::int64_t load = sum / others;
  for (std::size_t other = 0; other < row.size(); ++other) {
    C2R_REQUIRE(row[other] <= load, kInvalidFile,
                "{}: {} tokens chose experts {} and {}, but only {} chose expert {}", place,
                row[other], expert, other, load, expert);
  }
  return load;
}

}  // namespace

CollaborationStatistics import_sglang_loads(const LoadsRequest& request) {
  const std::string path = request.input.string();
  C2R_REQUIRE(request.top_k > 0, kInvalidArgument,
              "loads do not say how many experts a token has; give top_k (c2r import --top-k)");
  const Json json = read_json_file(request.input);
  const auto& outer = json_array(json_at(json, "logical_count", path), "logical_count", path);
  const bool has_steps =
      !outer.empty() && outer[0].is_array() && !outer[0].empty() && outer[0][0].is_array();
  std::vector<Loads> all;
  if (has_steps) {
    for (std::size_t step = 0; step < outer.size(); ++step) {
      add_step(outer[step], fmt::format("{}, step {}", path, step), all);
    }
  } else {
    add_step(json["logical_count"], path, all);
  }
  std::map<std::int32_t, Loads> layers;
  for (std::size_t layer = 0; layer < all.size(); ++layer) {
    if (std::ranges::all_of(all[layer], [](std::int64_t load) { return load == 0; })) continue;
    layers.emplace(static_cast<std::int32_t>(layer), all[layer]);
  }
  C2R_REQUIRE(!layers.empty(), kInvalidFile,
              "{}: every count is 0; was the recording started before the requests?", path);
  auto statistics = statistics_of(layers,
                                  {.model = request.model,
                                   .num_experts = static_cast<std::int32_t>(all[0].size()),
                                   .top_k = request.top_k},
                                  path);
  require_layers(request, statistics);
  return statistics;
}

CollaborationStatistics import_tensorrt_llm_loads(const LoadsRequest& request) {
  const std::string meta_path = (request.input / "meta_info.json").string();
  const Json meta = read_json_file(meta_path);
  const auto integer = [&](const char* key, std::int32_t max) {
    return static_cast<std::int32_t>(
        json_integer(json_at(meta, key, meta_path), 1, max, key, meta_path));
  };
  const TraceHeader header{.model = request.model,
                           .num_experts = integer("num_experts", kMaxExperts),
                           .top_k = integer("num_experts_per_token", kMaxTopK)};
  C2R_REQUIRE(request.top_k == 0 || request.top_k == header.top_k, kInvalidFile,
              "{}: num_experts_per_token is {}, but top_k is given as {}", meta_path, header.top_k,
              request.top_k);
  std::map<std::int32_t, Loads> layers;
  for (const auto& [rank, path] : rank_files(request.input)) {
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
  auto statistics = statistics_of(layers, header, request.input.string());
  require_layers(request, statistics);
  return statistics;
}

CollaborationStatistics import_coactivation(const LoadsRequest& request) {
  const NpyFile file(request.input);
  const TraceHeader header = coactivation_header(file, request);
  auto statistics = empty_statistics(header);
  const std::int64_t num_experts = header.num_experts;
  for (std::int64_t layer = 0; layer < header.num_layers(); ++layer) {
    const std::string place = fmt::format("{}, layer {}", file.path(), layer);
    CollaborationMatrix& counts = statistics.coactivation[static_cast<std::size_t>(layer)];
    read_pairs(file.array(), layer, place, counts);
    Loads loads;
    for (std::int64_t e = 0; e < num_experts; ++e) {
      loads.push_back(load_of_row(counts, e, header.top_k, place));
    }
    set_loads(loads, static_cast<std::size_t>(layer), place, statistics);
  }
  return statistics;
}

}  // namespace c2r
