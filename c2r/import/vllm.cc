// vLLM's routed experts, as nested lists: a response of its OpenAI server with
// `prompt_routed_experts` and `choices[].routed_experts`, an object with `routed_experts`, or such
// a list [num_tokens, num_moe_layers, top_k] alone.
//
// The prompt belongs to the first choice; every further choice is a sequence of its own. A position
// that was prefix-cached is -1 in all layers; it is left out and counted.
#include <algorithm>

#include "c2r/core/error.h"
#include "c2r/import/formats_internal.h"
#include "c2r/import/trace_builder_internal.h"

namespace c2r {
namespace {

class VllmImporter {
 public:
  explicit VllmImporter(const ImportRequest& request) : builder_(request) {}

  void add_file(const std::filesystem::path& path) {
    const std::string place = path.string();
    const Json json = read_json_file(path);
    if (json.is_array()) return add_sequence(nullptr, &json, place);
    const Json* const prompt = json_find(json, "prompt_routed_experts");
    const Json* const alone = json_find(json, "routed_experts");
    const Json* const choices = json_find(json, "choices");
    C2R_REQUIRE(prompt != nullptr || alone != nullptr || choices != nullptr, kInvalidFile,
                "{}: has neither prompt_routed_experts, routed_experts nor choices; was the server "
                "started with --enable-return-routed-experts?",
                place);
    if (choices == nullptr) return add_sequence(prompt, alone, place);
    C2R_REQUIRE(alone == nullptr, kInvalidFile, "{}: has both routed_experts and choices", place);
    const auto& array = json_array(*choices, "choices", place);
    for (std::size_t i = 0; i < array.size(); ++i) {
      const std::string where = fmt::format("{}, choice {}", place, i);
      const Json* const generated = json_find(array[i], "routed_experts");
      const bool has_key = array[i].is_object() && array[i].contains("routed_experts");
      C2R_REQUIRE(has_key || (i == 0 && prompt != nullptr), kInvalidFile,
                  "{}: has no routed_experts, not even null", where);
      add_sequence(i == 0 ? prompt : nullptr, generated, where);
    }
  }

  ImportResult finish() {
    ImportResult result = builder_.finish();
    result.num_skipped_tokens = num_skipped_;
    if (num_skipped_ > 0) {
      add_note(builder_.request(),
               fmt::format("left out: {} prefix-cached tokens, whose experts are not known",
                           num_skipped_));
    }
    return result;
  }

 private:
  void add_sequence(const Json* prompt, const Json* generated, const std::string& place) {
    SequenceChoices sequence;
    if (prompt != nullptr) append_tokens(*prompt, place + ", prompt", sequence);
    if (generated != nullptr) append_tokens(*generated, place, sequence);
    builder_.add_sequence(sequence, place);
  }

  void append_tokens(const Json& json, const std::string& place, SequenceChoices& sequence) {
    std::vector<ExpertId> token_ids;  // [num_layers, top_k]
    const auto& tokens = json_array(json, "the list of tokens", place);
    for (std::size_t t = 0; t < tokens.size(); ++t) {
      const auto token = static_cast<std::int64_t>(t);
      if (!tokens[t].is_array()) (void)json_array(tokens[t], fmt::format("token {}", t), place);
      const auto& layers = tokens[t].get_ref<const Json::array_t&>();
      if (sequence.topk_idx.empty()) {
        sequence.layer_indices = builder_.layer_indices_of(layers.size(), place);
        sequence.topk_idx.resize(layers.size());
      }
      C2R_REQUIRE(layers.size() == sequence.topk_idx.size(), kInvalidFile,
                  "{}: token {} has {} MoE layers, but the ones before it have {}", place, t,
                  layers.size(), sequence.topk_idx.size());
      token_ids.clear();
      for (std::size_t layer = 0; layer < layers.size(); ++layer) {
        const TokenPlace at{place, sequence.layer_indices[layer], token};
        builder_.append_ids(layers[layer], -1, at, token_ids);
      }
      if (std::ranges::all_of(token_ids, [](ExpertId id) { return id == kNoExpert; })) {
        ++num_skipped_;
        continue;
      }
      const auto top_k = static_cast<std::ptrdiff_t>(builder_.top_k());
      for (auto ids = token_ids.begin(); auto& layer : sequence.topk_idx) {
        layer.insert(layer.end(), ids, ids + top_k);
        ids += top_k;
      }
    }
  }

  TraceBuilder builder_;
  std::int64_t num_skipped_ = 0;
};

ImportResult write_vllm_trace(const ImportRequest& request) {
  VllmImporter importer(request);
  for_each_input(request, [&](const auto& path) { importer.add_file(path); });
  return importer.finish();
}

}  // namespace

ImportFormat import_rows::vllm() {
  return {.name = "vllm",
          .summary = "vLLM responses with routed_experts",
          .makes = ImportKind::kTrace,
          .needs = {ImportField::kNumExperts},
          .uses = {ImportField::kTopK, ImportField::kLayerIndices},
          .write_trace = write_vllm_trace};
}

}  // namespace c2r
