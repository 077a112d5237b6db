// The header of a trace or of statistics as metadata of a safetensors file, and its checks.
#include "c2r/trace/trace_metadata.h"

#include <algorithm>
#include <functional>
#include <limits>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"
#include "c2r/io/json.h"
#include "c2r/routing/routing.h"

namespace c2r {
namespace {

std::int32_t metadata_integer(const SafetensorsFile& file, std::string_view key, std::int32_t max) {
  const Json value = parse_json(file.metadata_at(key), file.path() + ", metadata");
  return static_cast<std::int32_t>(json_integer(value, 1, max, key, file.path() + ", metadata"));
}

}  // namespace

void check_header(const TraceHeader& header, std::string_view place) {
  C2R_REQUIRE(1 <= header.num_experts && header.num_experts <= kMaxExperts, kInvalidFile,
              "{}: num_experts is {}, but must be in [1, {}]", place, header.num_experts,
              kMaxExperts);
  C2R_REQUIRE(1 <= header.top_k && header.top_k <= std::min(kMaxTopK, header.num_experts),
              kInvalidFile, "{}: top_k is {}, but must be in [1, {}]", place, header.top_k,
              std::min(kMaxTopK, header.num_experts));
  C2R_REQUIRE(!header.layer_indices.empty(), kInvalidFile, "{}: has no MoE layer", place);
  C2R_REQUIRE(header.num_layers() <= kMaxLayers, kInvalidFile,
              "{}: has {} MoE layers, but must have at most {}", place, header.num_layers(),
              kMaxLayers);
  C2R_REQUIRE(header.layer_indices.front() >= 0, kInvalidFile,
              "{}: layer_indices begin with {}, but must not be negative", place,
              header.layer_indices.front());
  const auto descent = std::ranges::adjacent_find(header.layer_indices, std::greater_equal{});
  C2R_REQUIRE(descent == header.layer_indices.end(), kInvalidFile,
              "{}: layer_indices must ascend, but {} is followed by {}", place, *descent,
              *std::next(descent));
  C2R_REQUIRE(header.layer_indices.back() <= kMaxLayerIndex, kInvalidFile,
              "{}: layer_indices end with {}, but may be up to {}", place,
              header.layer_indices.back(), kMaxLayerIndex);
  try {
    (void)Json(header.model).dump();
  } catch (const Json::exception&) {
    C2R_THROW(kInvalidFile, "{}: the model's name '{}' is not UTF-8", place, shown(header.model));
  }
}

std::map<std::string, std::string> trace_metadata(const TraceHeader& header,
                                                  std::string_view format,
                                                  std::string_view version) {
  return {{"format", std::string(format)},
          {"version", std::string(version)},
          {"model", header.model},
          {"num_experts", std::to_string(header.num_experts)},
          {"top_k", std::to_string(header.top_k)},
          {"layer_indices", Json(header.layer_indices).dump()},
          {"id_space", "logical"}};
}

TraceHeader read_trace_metadata(const SafetensorsFile& file, std::string_view format,
                                std::string_view what) {
  const auto& metadata = file.metadata();
  const auto found = metadata.find("format");
  const std::string actual = found == metadata.end() ? "" : found->second;
  C2R_REQUIRE(actual == format || actual != kStatisticsFormat, kInvalidFile,
              "{}: holds counts, not each token's choices; give the trace that was counted",
              file.path());
  C2R_REQUIRE(actual == format, kInvalidFile,
              "{}: is not {}: its metadata lacks format = {}; `c2r import` reads other formats",
              file.path(), what, format);
  const std::string& version = file.metadata_at("version");
  const bool is_trace = format == kTraceFormat;
  C2R_REQUIRE(version == kFirstVersion || (is_trace && version == kTraceVersionWithLogits),
              kInvalidFile, "{}: is {} of version '{}', but this program reads {}", file.path(),
              what, shown(version),
              is_trace ? fmt::format("versions {} and {}", kFirstVersion, kTraceVersionWithLogits)
                       : fmt::format("version {}", kFirstVersion));
  C2R_REQUIRE(file.metadata_at("id_space") == "logical", kInvalidFile,
              "{}: id_space is '{}', but expert ids must be 'logical'", file.path(),
              shown(file.metadata_at("id_space")));
  TraceHeader header{.model = file.metadata_at("model"),
                     .num_experts = metadata_integer(file, "num_experts", kMaxExperts),
                     .top_k = metadata_integer(file, "top_k", kMaxTopK)};
  const std::string place = file.path() + ", metadata";
  const Json indices = parse_json(file.metadata_at("layer_indices"), place);
  for (const Json& layer : json_array(indices, "layer_indices", place)) {
    header.layer_indices.push_back(static_cast<std::int32_t>(
        json_integer(layer, 0, std::numeric_limits<std::int32_t>::max(), "layer_indices", place)));
  }
  check_header(header, file.path());
  return header;
}

}  // namespace c2r
