// SGLang's `meta_info.routed_experts`: base64 of int32, or of its `routed_experts_dtype`,
// [num_rows, num_hidden_layers, top_k], in a response of /generate; the OpenAI routes have the same
// fields under `choices[].sgl_ext` or `sglext`, and the numbers of tokens under `usage`.
//
// Layers in which every id is 0 are taken to be dense and left out, unless `layer_indices` names
// the MoE layers. The numbers of rows are compared with the numbers of tokens that a response
// states, for the array itself has no extents. The newer `meta_info.input_expert_ids` and
// `.output_expert_ids` are read as their `expert_ids_schema` says.
#include <algorithm>
#include <functional>
#include <numeric>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"
#include "c2r/import/formats_internal.h"
#include "c2r/import/json_inputs_internal.h"
#include "c2r/import/responses/packed_ids_internal.h"
#include "c2r/import/responses/routed_ids_internal.h"
#include "c2r/io/base64.h"
#include "c2r/io/npy.h"
#include "c2r/routing/routing.h"

namespace c2r {
namespace {

// The integers that ids are written as.
Dtype dtype_of_ids(const Json& info, const std::string& place) {
  const Json* const name = json_find(info, "routed_experts_dtype");
  if (name == nullptr) return Dtype::kI32;
  const std::string& text = json_string(*name, "routed_experts_dtype", place);
  return integer_dtype(text, "routed_experts_dtype", place);
}

// Appends the rows of a base64 string to `ids`. Of large responses the decoded bytes would need as
// much memory as the ids.
std::int64_t append_rows(const Json& base64, Dtype dtype, const std::string& place,
                         RoutedIds& ids) {
  const std::string& text = json_string(base64, "the base64 text", place);
  const std::int64_t row_bytes = ids.num_layers * ids.top_k * dtype_bytes(dtype);
  ids.values.reserve(ids.values.size() +
                     text.size() / 4 * 3 / static_cast<std::size_t>(dtype_bytes(dtype)));
  std::int64_t num_bytes = 0;
  decode_base64_blocks(text, place, [&](std::span<const std::byte> bytes) {
    append_integers({.dtype = dtype, .shape = {}, .bytes = bytes}, place, ids);
    num_bytes += std::ssize(bytes);
  });
  C2R_REQUIRE(num_bytes % row_bytes == 0, kInvalidFile,
              "{}: has {} bytes, which are not whole rows of {} layers x {} integers of {} bytes",
              place, num_bytes, ids.num_layers, ids.top_k, dtype_bytes(dtype));
  return num_bytes / row_bytes;
}

// How many tokens a response says it has.
struct TokenCounts {
  std::optional<std::int64_t> prompt, completion, cached;
  std::int64_t start = 0;  // the position that the first row is of
};

TokenCounts token_counts(const Json& info, const std::string& place) {
  const auto count = [&](const char* key) -> std::optional<std::int64_t> {
    const Json* const value = json_find(info, key);
    if (value == nullptr) return std::nullopt;
    return json_integer(*value, 0, INT32_MAX, key, place);
  };
  return {count("prompt_tokens"), count("completion_tokens"), count("cached_tokens"),
          count("routed_experts_start_len").value_or(0)};
}

// Whether there are more rows than `num_rows` and those are padding.
bool has_padding_after(const RoutedIds& ids, std::int64_t num_rows) {
  return num_rows < ids.num_rows() &&
         std::ranges::all_of(
             std::span(ids.values)
                 .subspan(static_cast<std::size_t>(num_rows * ids.num_layers * ids.top_k)),
             [](ExpertId id) { return id == kNoExpert; });
}

class SglangImporter {
 public:
  explicit SglangImporter(const ImportRequest& request) : request_(request), importer_(request) {}

  // A response of /generate, or of the OpenAI routes.
  void add_response(const Json& response, const std::string& place) {
    const Json* const choices = json_find(response, "choices");
    if (choices == nullptr || response.contains("meta_info")) {
      const Json* const info = json_find(response, "meta_info");
      if (info != nullptr) return add_info(*info, place);
      return importer_.leave_out(fmt::format("{}: has no meta_info, as responses have", place));
    }
    const auto& array = json_array(*choices, "choices", place);
    const Json usage = usage_as_info(response, array.size());
    bool is_found = false;
    for (std::size_t i = 0; i < array.size(); ++i) {
      const Json* const ext = json_find(array[i], "sgl_ext");
      if (ext == nullptr) continue;
      is_found = true;
      add_info(merged(usage, *ext),
               array.size() == 1 ? place : fmt::format("{}, choice {}", place, i));
    }
    for (std::size_t i = 0; i < array.size() && is_found; ++i) {
      if (json_find(array[i], "sgl_ext") != nullptr) continue;
      importer_.leave_out(fmt::format("{}, choice {}: has no sgl_ext", place, i));
    }
    for (const char* key : {"sglext", "nvext"}) {  // the latter behind Dynamo
      const Json* const ext = json_find(response, key);
      if (ext == nullptr || is_found) continue;
      is_found = true;
      add_info(merged(usage, *ext), place);
    }
    if (!is_found) add_info(usage, place);
  }

  ImportResult finish() {
    if (num_uncounted_ > 0) {
      add_note(request_, fmt::format("check --num-hidden-layers: {} responses do not say how many "
                                     "tokens they have, so it could not be compared",
                                     num_uncounted_));
    }
    return importer_.finish();
  }

 private:
  // What the OpenAI routes say about tokens, by the keys of meta_info.
  static Json usage_as_info(const Json& response, std::size_t num_choices) {
    Json info = Json::object();
    const Json* const usage = json_find(response, "usage");
    if (usage == nullptr) return info;
    const Json* const details = json_find(*usage, "prompt_tokens_details");
    const Json* const prompt = json_find(*usage, "prompt_tokens");
    const Json* const completion = json_find(*usage, "completion_tokens");  // of all choices
    const Json* const cached = details == nullptr ? nullptr : json_find(*details, "cached_tokens");
    if (prompt != nullptr) info["prompt_tokens"] = *prompt;
    if (completion != nullptr && num_choices == 1) info["completion_tokens"] = *completion;
    if (cached != nullptr) info["cached_tokens"] = *cached;
    return info;
  }

  static Json merged(Json info, const Json& ext) {
    if (!ext.is_object()) return info;
    for (const auto& item : ext.items()) info[item.key()] = item.value();
    return info;
  }

  void add_info(const Json& info, const std::string& place) {
    C2R_REQUIRE(info.is_object(), kInvalidFile, "{}: meta_info must be an object", place);
    if (info.contains("expert_ids_schema")) return add_with_schema(info, place);
    if (json_find(info, "routed_experts") == nullptr) {
      return importer_.leave_out(fmt::format(
          "{}: meta_info has no routed_experts; was return_routed_experts in the request?", place));
    }
    C2R_REQUIRE(
        request_.num_hidden_layers && request_.top_k, kInvalidArgument,
        "{}: does not say how many layers and experts a token has; give num_hidden_layers and "
        "top_k (c2r import --num-hidden-layers, --top-k)",
        place);
    C2R_REQUIRE(1 <= *request_.num_hidden_layers && *request_.num_hidden_layers <= kMaxLayers,
                kInvalidArgument, "num_hidden_layers is {}, but must be in [1, {}]",
                *request_.num_hidden_layers, kMaxLayers);
    for (const std::int32_t layer : request_.layer_indices) {
      C2R_REQUIRE(layer < *request_.num_hidden_layers, kInvalidArgument,
                  "layer index {} is not in [0, {}], the layers of the model", layer,
                  *request_.num_hidden_layers - 1);
    }
    importer_.builder().set_top_k(*request_.top_k, place);
    RoutedIds ids{.num_layers = *request_.num_hidden_layers, .top_k = *request_.top_k};
    append_rows(info["routed_experts"], dtype_of_ids(info, place), place + ", routed_experts", ids);
    set_counts(token_counts(info, place), place, ids);
    importer_.add(ids, place);
  }

  // Wrong extents would cut the ids into other rows, layers and columns without a trace.
  void set_counts(const TokenCounts& counts, const std::string& place, RoutedIds& ids) {
    const std::int64_t num_rows = ids.num_rows();
    if (counts.prompt && counts.completion) {
      const std::int64_t total = *counts.prompt + *counts.completion - 1;
      const std::int64_t expected = std::max<std::int64_t>(0, total - counts.start);
      C2R_REQUIRE(num_rows == expected || has_padding_after(ids, expected), kInvalidFile,
                  "{}: has {} ids, but tokens {} to {} ({} of the prompt + {} of the completion - "
                  "1) of {} layers x {} experts have {}; are num_hidden_layers and top_k right?",
                  place, ids.values.size(), counts.start, total, *counts.prompt, *counts.completion,
                  ids.num_layers, ids.top_k, expected * ids.num_layers * ids.top_k);
    } else {
      ++num_uncounted_;
    }
    if (counts.prompt) ids.num_prompt_rows = *counts.prompt - counts.start;
    if (counts.cached) ids.num_cached_rows = *counts.cached - counts.start;
  }

  void add_with_schema(const Json& info, const std::string& place) {
    const Json& schema = info["expert_ids_schema"];
    const std::string where = place + ", expert_ids_schema";
    const auto require = [&](const char* key, const char* value) {
      const std::string& found = json_string(json_at(schema, key, where), key, where);
      C2R_REQUIRE(found == value, kUnsupported, "{}: {} is '{}', but only '{}' is read", where, key,
                  shown(found), value);
    };
    require("dtype", "int32");
    require("layout", "row_major");
    require("id_space", "logical_global");
    const auto integer = [&](const char* key, std::int64_t min, std::int64_t max) {
      return json_integer(json_at(schema, key, where), min, max, key, where);
    };
    RoutedIds ids{.num_layers = integer("num_layers", 1, kMaxLayers),
                  .top_k = integer("top_k", 1, kMaxTopK)};
    importer_.builder().set_top_k(ids.top_k, where);
    const auto moe_layers = moe_layers_of(schema, where);
    std::int64_t num_input_rows = 0;
    for (const std::string direction : {"input", "output"}) {
      const std::string key = direction + "_expert_ids";
      if (!info.contains(key) || info[key].is_null()) continue;
      const std::int64_t num_rows =
          append_rows(info[key], Dtype::kI32, fmt::format("{}, {}", place, key), ids);
      const std::string rows_key = direction + "_num_rows";
      C2R_REQUIRE(num_rows == integer(rows_key.c_str(), 0, INT64_MAX), kInvalidFile,
                  "{}: {} has {} rows, but {} is {}", place, key, num_rows, rows_key,
                  schema[rows_key].get<std::int64_t>());
      if (direction == "input") num_input_rows = num_rows;
    }
    // The last token of the prompt is the first of the output's.
    const TokenCounts counts = token_counts(info, place);
    const Json* const start = json_find(schema, "input_start_position");
    const std::int64_t first =
        start == nullptr ? 0 : json_integer(*start, 0, INT32_MAX, "input_start_position", where);
    ids.num_prompt_rows = counts.prompt ? *counts.prompt - first : num_input_rows + 1;
    if (counts.cached) ids.num_cached_rows = *counts.cached - first;
    importer_.add(ids, axis_of(moe_layers, ids.num_layers, where), moe_layers, place);
  }

  static std::vector<std::int32_t> moe_layers_of(const Json& schema, const std::string& where) {
    std::vector<std::int32_t> moe_layers;
    for (const Json& id :
         json_array(json_at(schema, "moe_layer_ids", where), "moe_layer_ids", where)) {
      moe_layers.push_back(
          static_cast<std::int32_t>(json_integer(id, 0, kMaxLayerIndex, "a MoE layer", where)));
    }
    const auto descent = std::ranges::adjacent_find(moe_layers, std::greater_equal{});
    C2R_REQUIRE(descent == moe_layers.end(), kInvalidFile,
                "{}: moe_layer_ids must ascend, but {} is followed by {}", where, *descent,
                *std::next(descent));
    return moe_layers;
  }

  // Where the MoE layers lie on the layer axis, which has all layers or just them.
  static std::vector<std::int32_t> axis_of(const std::vector<std::int32_t>& moe_layers,
                                           std::int64_t num_layers, const std::string& place) {
    std::vector<std::int32_t> axis = moe_layers;
    if (std::ssize(moe_layers) == num_layers) {
      std::iota(axis.begin(), axis.end(), 0);
      return axis;
    }
    for (const std::int32_t layer : moe_layers) {
      C2R_REQUIRE(layer < num_layers, kInvalidFile,
                  "{}: moe_layer_ids has {}, but there are {} layers", place, layer, num_layers);
    }
    return axis;
  }

  const ImportRequest& request_;
  RoutedIdsImporter importer_;
  std::int64_t num_uncounted_ = 0;  // responses without numbers of tokens
};

ImportResult write_sglang_trace(const ImportRequest& request) {
  SglangImporter importer(request);
  for_each_json(request, is_list_of_objects, [&](const Json& json, const std::string& place) {
    importer.add_response(json, place);
  });
  return importer.finish();
}

}  // namespace

ImportFormat import_rows::sglang() {
  return {.name = "sglang",
          .summary = "SGLang responses with meta_info.routed_experts",
          .makes = ImportKind::kTrace,
          .needs = {ImportField::kNumExperts},
          .uses = {ImportField::kTopK, ImportField::kLayerIndices, ImportField::kNumHiddenLayers,
                   ImportField::kSkipCached, ImportField::kPhase},
          .endings = {".json", ".jsonl"},
          .write_trace = write_sglang_trace};
}

}  // namespace c2r
