// vLLM's routed experts, as nested lists, as base64 of the bytes of a .npy file, or as an object of
// packed integers (Dynamo, prime-rl): a response of its OpenAI server with `prompt_routed_experts`
// and `choices[].routed_experts`, or with Dynamo's `nvext.routed_experts`; an object with
// `routed_experts`; or a list [num_tokens, num_moe_layers, top_k] alone.
//
// The prompt belongs to the first choice; every further choice is a sequence of its own. The layer
// axis has MoE layers only, or all layers with zeros in dense ones. A position that was
// prefix-cached is -1 in all layers in some versions; it is left out and counted.
#include <algorithm>

#include "c2r/core/error.h"
#include "c2r/import/formats_internal.h"
#include "c2r/import/json_inputs_internal.h"
#include "c2r/import/responses/packed_ids_internal.h"
#include "c2r/import/responses/routed_ids_internal.h"
#include "c2r/io/base64.h"
#include "c2r/io/npy.h"
#include "c2r/routing/routing.h"

namespace c2r {
namespace {

// How many tokens a response says it has, if its only choice says so.
struct Usage {
  std::optional<std::int64_t> prompt, completion, cached;
};

Usage usage_of(const Json& response, std::size_t num_choices, const std::string& place) {
  const Json* const usage = json_find(response, "usage");
  if (usage == nullptr) return {};
  const auto count = [&](const Json& object, const char* key) -> std::optional<std::int64_t> {
    const Json* const value = json_find(object, key);
    if (value == nullptr) return std::nullopt;
    return json_integer(*value, 0, INT32_MAX, key, place);
  };
  Usage found{.prompt = count(*usage, "prompt_tokens")};
  if (num_choices == 1) found.completion = count(*usage, "completion_tokens");
  const Json* const details = json_find(*usage, "prompt_tokens_details");
  if (details != nullptr) found.cached = count(*details, "cached_tokens");
  return found;
}

class VllmImporter {
 public:
  explicit VllmImporter(const ImportRequest& request) : request_(request), importer_(request) {}

  void add_response(const Json& json, const std::string& place) {
    if (json.is_array()) return add_sequence(nullptr, &json, {}, place);
    const Json* const prompt = json_find(json, "prompt_routed_experts");
    const Json* const alone = json_find(json, "routed_experts");
    const Json* const choices = json_find(json, "choices");
    const Json* const nvext = json_find(json, "nvext");  // of Dynamo
    const Json* const by_dynamo = nvext == nullptr ? nullptr : json_find(*nvext, "routed_experts");
    if (by_dynamo != nullptr) {
      const std::size_t num_choices = choices == nullptr ? 1 : choices->size();
      return add_sequence(nullptr, by_dynamo, usage_of(json, num_choices, place), place);
    }
    if (prompt == nullptr && alone == nullptr && choices == nullptr) {
      return importer_.leave_out(fmt::format(
          "{}: has neither prompt_routed_experts, routed_experts nor choices; was the server "
          "started with --enable-return-routed-experts?",
          place));
    }
    if (choices == nullptr) return add_sequence(prompt, alone, usage_of(json, 1, place), place);
    C2R_REQUIRE(alone == nullptr, kInvalidFile, "{}: has both routed_experts and choices", place);
    const auto& array = json_array(*choices, "choices", place);
    const Usage usage = usage_of(json, array.size(), place);
    if (array.empty()) return add_sequence(prompt, nullptr, usage, place);
    for (std::size_t i = 0; i < array.size(); ++i) {
      const std::string where = fmt::format("{}, choice {}", place, i);
      const Json* const generated = json_find(array[i], "routed_experts");
      const bool has_key = array[i].is_object() && array[i].contains("routed_experts");
      if (!has_key && (i > 0 || prompt == nullptr)) {
        importer_.leave_out(fmt::format("{}: has no routed_experts, not even null", where));
        continue;
      }
      if (generated == nullptr && (i > 0 || prompt == nullptr)) {
        importer_.leave_out(fmt::format("{}: has no tokens to import", where));
        continue;
      }
      if (i == 0 || prompt == nullptr) {
        add_sequence(prompt, generated, usage, where);
      } else {
        add_sequence(nullptr, generated, {.prompt = 0, .cached = 0}, where);
      }
    }
  }

  ImportResult finish() { return importer_.finish(); }

 private:
  void add_sequence(const Json* prompt, const Json* generated, const Usage& usage,
                    const std::string& place) {
    RoutedIds ids;
    if (prompt != nullptr) append_tokens(*prompt, place + ", prompt", ids);
    const std::int64_t num_prompt_rows = ids.top_k == 0 ? 0 : ids.num_rows();
    // The position of the first row, which only an object of packed integers says.
    const std::int64_t start = generated == nullptr ? 0 : append_tokens(*generated, place, ids);
    if (ids.top_k == 0) {
      return importer_.leave_out(fmt::format("{}: has no tokens to import", place));
    }
    if (prompt != nullptr || usage.prompt == 0) {
      ids.num_prompt_rows = num_prompt_rows;
    } else if (usage.prompt && usage.completion) {
      // Newer versions return the prompt's tokens with those that were generated, but for the last.
      const bool has_prompt = ids.num_rows() == *usage.prompt + *usage.completion - 1 - start;
      const bool has_completion =
          ids.num_rows() == *usage.completion || ids.num_rows() == *usage.completion - 1;
      if (has_prompt || has_completion)
        ids.num_prompt_rows = has_prompt ? *usage.prompt - start : 0;
    }
    if (usage.cached && ids.num_prompt_rows) {
      ids.num_cached_rows = *ids.num_prompt_rows == 0 ? 0 : *usage.cached - start;
    }
    require_hidden_layers(ids, place);
    importer_.add(ids, place);
  }

  void require_hidden_layers(const RoutedIds& ids, const std::string& place) const {
    if (!request_.num_hidden_layers || *request_.num_hidden_layers == ids.num_layers) return;
    C2R_REQUIRE(std::ssize(request_.layer_indices) == ids.num_layers, kInvalidFile,
                "{}: has {} layers, but num_hidden_layers is {}; a version of vLLM that counts MoE "
                "layers only needs their indices (c2r import --layers)",
                place, ids.num_layers, *request_.num_hidden_layers);
  }

  // @returns the position of the first token, if the input says it, else 0
  std::int64_t append_tokens(const Json& json, const std::string& place, RoutedIds& ids) {
    TraceBuilder& builder = importer_.builder();
    if (json.is_object()) return append_packed(json, place, builder, ids);
    if (json.is_string()) {  // base64 of the bytes of a .npy file
      if (json.get_ref<const std::string&>().empty()) return 0;
      const NpyFile file(place, decode_base64(json.get_ref<const std::string&>(), place));
      append_array(file.array(), place, builder, ids);
      return 0;
    }
    const auto& tokens = json_array(json, "the list of tokens", place);
    for (std::size_t t = 0; t < tokens.size(); ++t) {
      const auto token = static_cast<std::int64_t>(t);
      if (!tokens[t].is_array()) (void)json_array(tokens[t], fmt::format("token {}", t), place);
      const auto& layers = tokens[t].get_ref<const Json::array_t&>();
      if (ids.num_layers == 0) set_num_layers(layers.size(), place, ids);
      C2R_REQUIRE(std::ssize(layers) == ids.num_layers, kInvalidFile,
                  "{}: token {} has {} layers, but the ones before it have {}", place, t,
                  layers.size(), ids.num_layers);
      for (std::size_t layer = 0; layer < layers.size(); ++layer) {
        const TokenPlace at{place, static_cast<std::int64_t>(layer), token};
        builder.append_ids(layers[layer], -1, at, ids.values);
      }
      ids.top_k = builder.top_k();
    }
    return 0;
  }

  const ImportRequest& request_;
  RoutedIdsImporter importer_;
};

ImportResult write_vllm_trace(const ImportRequest& request) {
  VllmImporter importer(request);
  for_each_json(request, is_list_of_objects, [&](const Json& json, const std::string& place) {
    importer.add_response(json, place);
  });
  return importer.finish();
}

}  // namespace

ImportFormat import_rows::vllm() {
  return {.name = "vllm",
          .summary = "vLLM responses with routed_experts",
          .makes = ImportKind::kTrace,
          .needs = {ImportField::kNumExperts},
          .uses = {ImportField::kTopK, ImportField::kLayerIndices, ImportField::kNumHiddenLayers,
                   ImportField::kSkipCached, ImportField::kPhase},
          .endings = {".json", ".jsonl"},
          .write_trace = write_vllm_trace};
}

}  // namespace c2r
