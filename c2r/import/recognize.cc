// The marks by which inputs are told apart: keys of JSON objects, shapes of arrays, names in
// folders.
#include "c2r/import/recognize.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "c2r/core/error.h"
#include "c2r/core/parse_integer.h"
#include "c2r/core/shown.h"
#include "c2r/import/import.h"
#include "c2r/import/torch/torch_file_internal.h"
#include "c2r/import/torch/zip_archive_internal.h"
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
    {"sglext", "sglang", "a response of SGLang's OpenAI routes"},
    {"prompt_routed_experts", "vllm", "a response of vLLM"},
    {"routed_experts", "vllm", "routed experts of vLLM"},
    {"choices", "vllm", "a response of vLLM"},
    {"top_indices", "megatron", "a routing trace of Megatron-Core"},
    {"expert_load", "vllm-loads", "loads of vLLM's pull request 41141"},
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

// A response of an OpenAI route that says by a nested key which engine answered.
std::optional<RecognizedInput> recognize_response(const Json& response) {
  const Json* const choices = json_find(response, "choices");
  if (choices != nullptr && choices->is_array() && !choices->empty() &&
      json_find((*choices)[0], "sgl_ext") != nullptr) {
    return RecognizedInput{"sglang", "a response of SGLang's OpenAI routes"};
  }
  const Json* const nvext = json_find(response, "nvext");
  const Json* const ids = nvext == nullptr ? nullptr : json_find(*nvext, "routed_experts");
  if (ids == nullptr) return std::nullopt;
  constexpr std::string_view kNpyInBase64 = "k05VTVBZ";
  const bool is_sglang =
      ids->is_string() && !ids->get_ref<const std::string&>().starts_with(kNpyInBase64);
  return RecognizedInput{
      is_sglang ? "sglang" : "vllm",
      fmt::format("a response of Dynamo, with {} behind it", is_sglang ? "SGLang" : "vLLM")};
}

// @param has a set of keys or of columns, `layer` and `expert` among them
template <class Has>
RecognizedInput recognize_table(const Has& has) {
  if (has.contains("count")) return {"table-loads", "a table with layer, expert and count"};
  if (has.contains("token")) return {"table", "a table with layer, token and expert"};
  return unknown("a table with layer and expert, but neither token nor count");
}

RecognizedInput recognize_object(const Json& object) {
  if (object.contains("format") && object["format"] == "c2r-plan") {
    return unknown("a plan of c2r, which needs no import");
  }
  if (const auto response = recognize_response(object)) return *response;
  for (const KeyMark& mark : kKeyMarks) {
    if (object.contains(mark.key)) return {std::string(mark.format), std::string(mark.what)};
  }
  if (object.contains("layer") && object.contains("expert")) return recognize_table(object);
  std::vector<std::string> keys;
  for (const auto& item : object.items()) keys.push_back(item.key());
  const bool has_layers = !keys.empty() && std::ranges::all_of(keys, [](const std::string& key) {
    return parse_integer(key).has_value();
  });
  if (has_layers) return {"orders-in-chaos", "steps of core12345/MoE_expert_selection_trace"};
  if (keys.empty()) return unknown("JSON of an empty object");
  return unknown("JSON with the keys " + keys_text(keys));
}

RecognizedInput recognize_json(const Json& json) {
  if (json.is_object()) return recognize_object(json);
  if (!json.is_array() || json.empty()) return unknown("JSON without an object");
  const Json* value = &json;
  std::size_t depth = 0;
  while (value->is_array() && !value->empty() && depth < 4) {
    const auto& array = value->get_ref<const Json::array_t&>();
    const auto found = std::ranges::find_if(array, [](const Json& one) { return !one.is_null(); });
    value = found == array.end() ? &array[0] : &*found;  // requests that failed may be null
    ++depth;
  }
  if (value->is_object() && depth <= 2) return recognize_object(*value);
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

// Whether an array is 0 and 1 only, in rows that are too long to be distinct ids, and 1 somewhere
// on the first axis for each place on the others.
bool is_pattern(const NpyView& array) {
  if (array.shape[2] < 3 || array.shape[0] < 1) return false;
  const std::int64_t num_places = array.shape[1] * array.shape[2];
  for (std::int64_t i = 0; i < array.shape[0] * num_places; ++i) {
    const std::int64_t value = integer_at(array, i);
    if (value != 0 && value != 1) return false;
  }
  for (std::int64_t place = 0; place < num_places; ++place) {
    std::int64_t row = 0;
    while (row < array.shape[0] && integer_at(array, row * num_places + place) == 0) ++row;
    if (row == array.shape[0]) return false;
  }
  return true;
}

bool is_whole(const NpyView& array) {
  for (std::int64_t i = 0; i < array.num_elements(); ++i) {
    const double value = double_at(array, i);
    if (value != std::trunc(value)) return false;
  }
  return true;
}

RecognizedInput recognize_npy(std::vector<std::byte> bytes, std::string_view place) {
  const NpyFile file(std::string(place), std::move(bytes));
  const NpyView& array = file.array();
  const auto& shape = array.shape;
  const std::string what =
      fmt::format("an array of {} {}", dtype_name(array.dtype), shape_text(shape));
  if (shape.size() != 3 || array.dtype == Dtype::kBool) return unknown(what);
  if (!is_integer(array.dtype)) {
    if (shape[2] > kMaxTopK || !is_whole(array)) return unknown(what);
    return {"npy", what + " of whole numbers, thus ids [tokens, layers, top_k]"};
  }
  const bool has_pairs = begins_with_pairs(array);
  if (shape[2] <= kMaxTopK && !has_pairs && !is_pattern(array)) {
    return {"npy", what + ", thus ids [tokens, layers, top_k]"};
  }
  if (shape[1] == shape[2] && (has_pairs || !is_pattern(array))) {
    return {"coactivation", what + ", thus pair counts [layers, experts, experts]"};
  }
  return {"omni-infer-placement", what + ", thus a pattern [ranks, layers, experts]"};
}

bool is_npz(const std::filesystem::path& path) {
  const MappedFile file(path);
  const torch::ZipArchive zip(file.bytes(), path.string(), torch::ZipCompression::kDeflate);
  return std::ranges::any_of(zip.entries(),
                             [](const auto& entry) { return entry.first.ends_with(".npy"); });
}

RecognizedInput recognize_zip(const std::filesystem::path& path) {
  if (is_npz(path)) return {"npy", "a .npz file of arrays"};
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

// The first file of the folder, in the order of their names, that one of the formats would read.
std::optional<std::filesystem::path> first_readable(const std::filesystem::path& folder) {
  std::optional<std::filesystem::path> first;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string ending = without_compression(entry->path()).extension();
    const bool is_readable = std::ranges::any_of(import_formats(), [&](const auto& format) {
      return std::ranges::find(format.endings, ending) != format.endings.end();
    });
    if (is_readable && (!first || entry->path() < *first)) first = entry->path();
  }
  return first;
}

RecognizedInput recognize_folder(const std::filesystem::path& path) {
  if (path_exists(path / "meta_info.json")) {
    return {"tensorrt-llm-loads", "a folder of TensorRT-LLM's expert statistics"};
  }
  if (const auto file = first_readable(path)) {
    RecognizedInput input = recognize_input(*file);
    input.what = fmt::format("a folder with {}", input.what);
    return input;
  }
  std::error_code error;
  for (std::filesystem::recursive_directory_iterator entry(path, error), end;
       !error && entry != end && entry.depth() < 2; entry.increment(error)) {
    if (entry.depth() == 1 && entry->path().extension() == ".pt") {
      return {"flame-moe", "a folder of FLAME-MoE's captures"};
    }
  }
  return unknown("a folder without meta_info.json, readable files and folders of .pt files");
}

// The names in a line of CSV without quotes.
std::set<std::string> columns_of(std::string_view line) {
  std::set<std::string> columns;
  if (line.ends_with('\r')) line.remove_suffix(1);
  for (std::size_t begin = 0; begin <= line.size();) {
    const std::size_t end = std::min(line.find(',', begin), line.size());
    columns.emplace(line.substr(begin, end - begin));
    begin = end + 1;
  }
  return columns;
}

bool is_binary(std::string_view text) {
  return std::ranges::any_of(text.substr(0, 64), [](char c) {
    return (static_cast<unsigned char>(c) < ' ' && c != '\t' && c != '\r' && c != '\n');
  });
}

RecognizedInput recognize_text(std::string_view text, const std::string& place) {
  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  const std::size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return unknown("an empty file");
  const std::string_view line = text.substr(begin, text.find('\n', begin) - begin);
  if (line.starts_with("Layer ID,")) return {"moe-beyond", "a trace of ngavhane/moe-beyond"};
  const std::set<std::string> columns = columns_of(line);
  if (columns.contains("layer") && columns.contains("expert")) return recognize_table(columns);
  if (text[begin] == '{' || text[begin] == '[') {
    const bool has_more = text.find_first_not_of(" \t\r\n", begin + line.size()) != text.npos;
    if (has_more && Json::accept(line)) return recognize_json(parse_json(line, place + ":1"));
    return recognize_json(parse_json(text, place));
  }
  if (text.find("initial_global_assignments:") != std::string_view::npos ||
      text.find("load_balancer:") != std::string_view::npos) {
    return {"tensorrt-llm-placement", "a load balancer's yaml of TensorRT-LLM"};
  }
  return unknown(fmt::format("{} that begins with '{}'", is_binary(text) ? "a binary file" : "text",
                             shown(line, 30)));
}

}  // namespace

RecognizedInput recognize_input(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path)) return recognize_folder(path);
  if (torch::is_zip(path)) return recognize_zip(path);
  std::vector<std::byte> bytes = read_file(path);
  const std::string_view text{reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  if (text.starts_with("\x93NUMPY")) return recognize_npy(std::move(bytes), path.string());
  if (text.size() > 9 && text[8] == '{' && text.substr(1, 7).find('\0') != text.npos) {
    return unknown("a safetensors file, such as c2r's own, which need no import");
  }
  if (text.size() > 1 && text[0] == '\x80' && '\2' <= text[1] && text[1] <= '\5') {
    return unknown("a pickle, which c2r does not open: save what it holds with numpy.save()");
  }
  return recognize_text(text, path.string());
}

}  // namespace c2r
