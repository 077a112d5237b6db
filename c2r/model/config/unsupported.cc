// Recognizes families, quantized weights and formats that c2r does not run.
#include "c2r/model/config/unsupported.h"

#include <algorithm>
#include <cctype>
#include <iterator>
#include <vector>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"
#include "c2r/io/file.h"

namespace c2r {
namespace {

struct Reason {
  std::string_view name, text;
};

constexpr std::string_view kLatent = "multi-head latent attention",
                           kSigmoid = "routing by sigmoid with a bias for each expert",
                           kLinear = "linear attention";

// Families that are known, and what each needs and c2r lacks.
constexpr Reason kMissing[] = {
    {"deepseek_v2", kLatent},
    {"deepseek_v3", "multi-head latent attention, and routing by sigmoid with groups"},
    {"deepseek_v32", "multi-head latent and sparse attention"},
    {"deepseek_v4", "its sparse attention and hash routing"},
    {"kimi_k2", "multi-head latent attention, and routing by sigmoid with groups"},
    {"kimi_linear", kLinear},
    {"longcat_flash", "multi-head latent attention, and experts that compute nothing"},
    {"glm4_moe_lite", kLatent},
    {"gpt_oss", "GPT-OSS's attention sinks, sliding windows, YaRN and MXFP4 weights"},
    {"llama4", "chunked attention, layers without positions, and its routing"},
    {"llama4_text", "chunked attention, layers without positions, and its routing"},
    {"qwen3_next", kLinear},
    {"qwen3_5_moe", kLinear},
    {"qwen3_5_moe_text", kLinear},
    {"qwen3_vl_moe", "image input, and positions in three dimensions"},
    {"qwen3_omni_moe", "image and sound input"},
    {"minimax", kLinear},
    {"minimax_m2", kSigmoid},
    {"glm4_moe", kSigmoid},
    {"glm4v_moe", "image input, and routing by sigmoid with a bias for each expert"},
    {"dots1", kSigmoid},
    {"ernie4_5_moe", "routing with a bias for each expert, and its rotary positions"},
    {"hunyuan_v1_moe", "its dynamic scaling of positions"},
    {"phimoe", "its routing (SparseMixer) and LayerNorm with a bias"},
    {"granitemoe", "its factors of embeddings, attention, residuals and logits"},
    {"dbrx", "its fused projections and LayerNorm"},
    {"jetmoe", "experts in attention"},
    {"flex_olmo", "its norms after attention and MLP"},
    {"jamba", "state-space layers"},
    {"nemotron_h", "state-space layers"},
    {"lfm2_moe", "convolution layers"},
    {"switch_transformers", "an encoder and a decoder"},
    {"nllb_moe", "an encoder and a decoder"},
};

constexpr std::string_view kDense[] = {"llama", "mistral", "olmo2",       "qwen2",
                                       "qwen3", "gemma2",  "gemma3_text", "phi3"};

constexpr std::string_view kDequantize =
                               "load it in transformers with dequantize=True in its "
                               "quantization_config and save it with save_pretrained",
                           kOriginal = "take the checkpoint in bf16 that it was made from";
constexpr Reason kQuantized[] = {
    {"fp8", kDequantize},
    {"fbgemm_fp8", kOriginal},
    {"mxfp4", kDequantize},
    {"gptq", kOriginal},
    {"awq", kOriginal},
    {"bitsandbytes", kOriginal},
    {"compressed-tensors", kOriginal},
    {"modelopt", kOriginal},  // NVFP4 and FP8 of NVIDIA's Model Optimizer
};

std::string_view text_of(std::span<const Reason> reasons, std::string_view name) {
  const auto found = std::ranges::find(reasons, name, &Reason::name);
  return found == reasons.end() ? std::string_view() : found->text;
}

constexpr const char* kGguf =
    "c2r reads safetensors, not llama.cpp's GGUF; take the folder of the "
    "model that it was made from";
constexpr const char* kAdapter =
    "an adapter of PEFT, not a model; merge it into its base model (merge_and_unload) and save "
    "that with save_pretrained";
// What tools that quantize leave beside a config.json that may not say so.
constexpr const char* kFilesOfQuantizers[] = {"hf_quant_config.json", "quantize_config.json",
                                              "quant_config.json"};

// The first file of the folder whose name ends so; empty if there is none.
std::string file_ending_in(const std::filesystem::path& folder, std::string_view suffix) {
  std::string first;
  std::error_code ignored;  // a folder that cannot be listed has no such file
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(suffix) && (first.empty() || name < first)) first = name;
  }
  return first;
}

// "org/name" of the address of a model's page; other texts as they are.
std::string without_address(std::string name) {
  for (const std::string_view hub : {"https://huggingface.co/", "https://hf.co/"}) {
    if (!name.starts_with(hub)) continue;
    name.erase(0, hub.size());
    const auto end = std::min(name.find('/'), name.size() - 1);
    return name.substr(0, name.find('/', end + 1));
  }
  return name;
}

// "org/name", as models of the hub are called.
bool is_like_hub_name(const std::string& name) {
  const auto is_fine = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_' || c == '.' ||
           c == '/';
  };
  return std::ranges::count(name, '/') == 1 && !name.starts_with('/') && !name.starts_with('.') &&
         !name.ends_with('/') && std::ranges::all_of(name, is_fine);
}

}  // namespace

std::string why_not_family(std::string_view model_type) {
  if (std::ranges::find(kDense, model_type) != std::end(kDense)) {
    return "is dense, but c2r runs only models with experts";
  }
  const std::string_view feature = text_of(kMissing, model_type);
  if (feature.empty()) return {};
  return fmt::format(
      "c2r does not run for lack of {}; its traces can be imported from the engine that runs it, "
      "see "
      "c2r help import",
      feature);
}

void check_not_quantized(const Json& config, std::string_view place) {
  for (const char* const key : {"quantization_config", "compression_config", "quantization"}) {
    const Json* const value = json_find(config, key);
    if (value == nullptr || *value == Json(false)) continue;
    const Json* const method = json_find(*value, "quant_method");
    const std::string name = method != nullptr && method->is_string()
                                 ? method->get_ref<const std::string&>()
                                 : std::string("unknown");
    const std::string_view remedy = text_of(kQuantized, name);
    C2R_THROW(kUnsupported,
              "{}: the weights are quantized ({}), but c2r multiplies only F32, F16 and BF16; {}",
              place, shown(name), remedy.empty() ? kOriginal : remedy);
  }
}

void check_model_folder(const std::filesystem::path& folder) {
  const std::string name = folder.string(), of_hub = without_address(name);
  std::error_code ignored;  // what it would say, path_exists() has said
  if (!path_exists(folder)) {
    C2R_REQUIRE(!is_like_hub_name(of_hub), kInvalidFile,
                "'{}' is not a folder with a model; if it is a model of the Hugging Face hub, get "
                "it first: hf download {} --local-dir FOLDER",
                shown(name, 200), of_hub);
  } else if (!std::filesystem::is_directory(folder, ignored)) {
    C2R_REQUIRE(!name.ends_with(".gguf"), kUnsupported, "'{}' is a GGUF file, but {}",
                shown(name, 200), kGguf);
  } else {
    if (path_exists(folder / "config.json")) return;
    C2R_REQUIRE(!path_exists(folder / "adapter_config.json"), kUnsupported, "'{}' is {}",
                shown(name, 200), kAdapter);
    C2R_REQUIRE(!path_exists(folder / "snapshots"), kInvalidFile,
                "'{}' is a cache of the Hugging Face hub; give one of the folders in its snapshots",
                shown(name, 200));
    const std::string gguf = file_ending_in(folder, ".gguf");
    C2R_REQUIRE(gguf.empty(), kUnsupported, "'{}' has {} and no config.json, but {}",
                shown(name, 200), shown(gguf), kGguf);
    C2R_THROW(kInvalidFile, "'{}' is not a folder with a model: it has no config.json",
              shown(name, 200));
  }
  C2R_THROW(kInvalidFile, "'{}' is not a folder with a model", shown(name, 200));
}

void check_no_file_of_quantizer(const std::filesystem::path& folder) {
  for (const char* const file : kFilesOfQuantizers) {
    C2R_REQUIRE(!path_exists(folder / file), kUnsupported,
                "'{}' has {}, so its weights are quantized, but c2r multiplies only F32, F16 and "
                "BF16; {}; if they are not, remove that file",
                shown(folder.string(), 200), file, kOriginal);
  }
}

std::string why_no_checkpoint(const std::filesystem::path& folder) {
  if (path_exists(folder / "adapter_config.json")) return fmt::format("; it is {}", kAdapter);
  for (const char* const suffix : {".bin", ".pt", ".pth", ".ckpt"}) {
    const std::string file = file_ending_in(folder, suffix);
    if (file.empty()) continue;
    return fmt::format(
        "; c2r does not read {}, since such files can run programs: load the model in "
        "transformers and save it with save_pretrained",
        shown(file));
  }
  if (!file_ending_in(folder, ".gguf").empty()) return fmt::format("; {}", kGguf);
  const std::string other = file_ending_in(folder, ".safetensors");
  if (other.empty()) return {};
  return fmt::format("; {} has another name, so c2r does not know what it is", shown(other));
}

}  // namespace c2r
