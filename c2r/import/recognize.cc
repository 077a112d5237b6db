// The marks by which inputs are told apart: keys of JSON objects, shapes of arrays, names in
// folders.
#include "c2r/import/recognize.h"

#include <algorithm>
#include <vector>

#include "c2r/core/error.h"
#include "c2r/core/parse_integer.h"
#include "c2r/core/shown.h"
#include "c2r/import/torch/torch_file_internal.h"
#include "c2r/io/file.h"
#include "c2r/io/json.h"
#include "c2r/io/npy.h"
#include "c2r/routing/routing.h"

namespace c2r {
namespace {

struct KeyMark {
  std::string_view key, format, what;
};

// In this order: what has several of these keys is what the first of them says.
constexpr KeyMark kKeyMarks[] = {
    {"meta_info", "sglang", "a response of SGLang"},
    {"prompt_routed_experts", "vllm", "a response of vLLM"},
    {"routed_experts", "vllm", "routed experts of vLLM"},
    {"choices", "vllm", "a response of vLLM"},
    {"top_indices", "megatron", "a routing trace of Megatron-Core"},
    {"logical_to_physical_map", "eplb-placement", "a placement by EPLB"},
    {"physical_to_logical_map", "sglang-placement", "a placement of SGLang"},
    {"logical_count", "sglang-loads", "loads of SGLang's recorder"},
    {"moe_layer_count", "vllm-ascend-placement", "a placement of vllm-ascend"},
    {"old_of_new", "permutation-placement", "a permutation of experts by c2r"},
    {"initial_global_assignments", "vllm-41141-placement",
     "a placement of vLLM's pull request 41141"},
};

RecognizedInput unknown(std::string what) {
  return {.format = "", .what = std::move(what)};
}

template <class Keys>
std::string keys_text(const Keys& keys) {
  std::string text;
  std::size_t num_keys = 0;
  for (const auto& key : keys) {
    if (++num_keys > 4) return text + ", ...";
    text += (text.empty() ? "" : ", ") + shown(key, 30);
  }
  return text;
}

RecognizedInput recognize_object(const Json& object) {
  if (object.contains("format") && object["format"] == "c2r-plan") {
    return unknown("a plan of c2r, which needs no import");
  }
  for (const KeyMark& mark : kKeyMarks) {
    if (object.contains(mark.key)) return {std::string(mark.format), std::string(mark.what)};
  }
  std::vector<std::string> keys;
  for (const auto& item : object.items()) keys.push_back(item.key());
  const bool has_layers = !keys.empty() && std::ranges::all_of(keys, [](const std::string& key) {
    return parse_integer(key).has_value();
  });
  if (has_layers) return {"orders-in-chaos", "steps of core12345/MoE_expert_selection_trace"};
  return unknown("JSON with the keys " + keys_text(keys));
}

RecognizedInput recognize_json(const Json& json) {
  if (json.is_object()) return recognize_object(json);
  if (!json.is_array() || json.empty()) return unknown("JSON without an object");
  const Json* value = &json;
  std::size_t depth = 0;
  while (value->is_array() && !value->empty() && depth < 4) {
    value = &(*value)[0];
    ++depth;
  }
  if (value->is_object() && depth == 1) return recognize_object(*value);
  if (value->is_number() && depth == 3) return {"vllm", "routed experts of vLLM, as a list"};
  if (value->is_number() && depth <= 2) {
    return {"vllm-49572-placement", "a placement of vLLM's pull request 49572"};
  }
  return unknown(fmt::format("JSON lists in each other, {} deep", depth));
}

// Whether the first matrix of [n, m, m] is symmetric with nothing on the diagonal.
bool begins_with_pairs(const NpyView& array) {
  const std::int64_t size = array.shape[1];
  if (array.shape[0] < 1 || size != array.shape[2] || size > kMaxExperts) return false;
  for (std::int64_t a = 0; a < size; ++a) {
    if (integer_at(array, a * size + a) > 0) return false;
    for (std::int64_t b = 0; b < a; ++b) {
      if (integer_at(array, a * size + b) != integer_at(array, b * size + a)) return false;
    }
  }
  return true;
}

RecognizedInput recognize_npy(std::span<const std::byte> bytes, std::string_view place) {
  const NpyView array = parse_npy(bytes, place);
  const auto& shape = array.shape;
  const std::string what =
      fmt::format("an array of {} {}", dtype_name(array.dtype), shape_text(shape));
  if (!is_integer(array.dtype) || shape.size() != 3) return unknown(what);
  if (shape[2] <= kMaxTopK && !begins_with_pairs(array))
    return {"npy", what + ", thus ids [tokens, layers, top_k]"};
  if (shape[1] == shape[2]) {
    return {"coactivation", what + ", thus pair counts [layers, experts, experts]"};
  }
  return {"omni-infer-placement", what + ", thus a pattern [ranks, layers, experts]"};
}

RecognizedInput recognize_torch(const std::filesystem::path& path) {
  const torch::TorchFile file(path);
  const torch::Value& root = file.root();
  const std::string top = "what the file holds";
  if (root.kind == torch::Kind::kTuple && file.items(root, top).size() == 2) {
    return unknown(
        "a torch file of a pair, as FLAME-MoE captures a layer; give the folder of the "
        "step, with --from flame-moe");
  }
  if (root.kind != torch::Kind::kDict) {
    return unknown(fmt::format("a torch file of {}", torch::kind_text(root.kind)));
  }
  if (file.find(root, "logical_count", top) != nullptr) {
    return {"sglang-loads", "a torch file of SGLang's recorder, mode stat"};
  }
  if (file.find(root, "physical_to_logical_map", top) != nullptr) {
    return {"sglang-placement", "a torch file of SGLang's --init-expert-location"};
  }
  const torch::Value* const records = file.find(root, "records", top);
  if (records == nullptr) {
    return unknown("a torch file of a dict with the keys " + keys_text(file.keys(root, top)));
  }
  for (const torch::Value& record : file.items(*records, "records")) {
    if (file.find(record, "topk_ids_of_layer", "a record") != nullptr) {
      return {"sglang-recorder", "a torch file of SGLang's recorder, mode per_token"};
    }
  }
  return {"sglang-loads", "a torch file of SGLang's recorder, mode per_pass"};
}

RecognizedInput recognize_folder(const std::filesystem::path& path) {
  if (path_exists(path / "meta_info.json")) {
    return {"tensorrt-llm-loads", "a folder of TensorRT-LLM's expert statistics"};
  }
  std::error_code error;
  for (std::filesystem::recursive_directory_iterator entry(path, error), end;
       !error && entry != end && entry.depth() < 2; entry.increment(error)) {
    if (entry.depth() == 1 && entry->path().extension() == ".pt") {
      return {"flame-moe", "a folder of FLAME-MoE's captures"};
    }
  }
  return unknown("a folder without meta_info.json and without folders of .pt files");
}

RecognizedInput recognize_text(std::string_view text, const std::string& place) {
  const std::size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return unknown("an empty file");
  const std::string_view line = text.substr(begin, text.find('\n', begin) - begin);
  if (line.starts_with("Layer ID,")) return {"moe-beyond", "a trace of ngavhane/moe-beyond"};
  if (text[begin] == '{' || text[begin] == '[') {
    const bool has_more = text.find_first_not_of(" \t\r\n", begin + line.size()) != text.npos;
    if (has_more && Json::accept(line)) return recognize_json(parse_json(line, place + ":1"));
    return recognize_json(parse_json(text, place));
  }
  if (text.find("initial_global_assignments:") != std::string_view::npos) {
    return {"tensorrt-llm-placement", "a load balancer's yaml of TensorRT-LLM"};
  }
  return unknown(fmt::format("text that begins with '{}'", shown(line, 30)));
}

}  // namespace

RecognizedInput recognize_input(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path)) return recognize_folder(path);
  if (torch::is_zip(path)) return recognize_torch(path);
  const std::vector<std::byte> bytes = read_file(path);
  const std::string_view text{reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  if (text.starts_with("\x93NUMPY")) return recognize_npy(bytes, path.string());
  if (text.size() > 9 && text[8] == '{' && text.substr(1, 7).find('\0') != text.npos) {
    return unknown("a safetensors file, such as c2r's own, which need no import");
  }
  return recognize_text(text, path.string());
}

}  // namespace c2r
