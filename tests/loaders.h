// Every loader by name, for the tests of broken files and the fuzzers.
#pragma once

#include <algorithm>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

#include "c2r/collaboration/collaboration.h"
#include "c2r/core/shown.h"
#include "c2r/import/import.h"
#include "c2r/import/recognize.h"
#include "c2r/import/torch/torch_file_internal.h"
#include "c2r/io/csv.h"
#include "c2r/io/file.h"
#include "c2r/io/json.h"
#include "c2r/io/npy.h"
#include "c2r/io/safetensors.h"
#include "c2r/model/model.h"
#include "c2r/placement/cluster.h"
#include "c2r/placement/hardware.h"
#include "c2r/tokenizer/tokenizer.h"
#include "c2r/tokenizer/tokenizer_spec.h"

namespace c2r::testing {

inline void load_csv(const std::filesystem::path& path) {
  const std::string text = read_text_file(path);
  CsvReader csv(text, path.native());
  while (csv.next()) {
  }
}

inline void load_trace(const std::filesystem::path& path) {
  const Trace trace(path);
  for (std::int64_t layer = 0; layer < trace.header().num_layers(); ++layer) {
    (void)trace.topk_idx(layer, 0, trace.num_tokens());
    if (trace.has_logits()) (void)trace.logits(layer, 0, trace.num_tokens());
  }
}

inline void use_tokenizer(TokenizerSpec spec) {
  const Tokenizer tokenizer(std::move(spec));
  (void)tokenizer.decode(tokenizer.encode("Ab  12<s>e\u0301\n\xff"), SpecialTokens::kKeep);
}

inline void load_tokenizer_config(const std::filesystem::path& path) {
  TokenizerSpec spec{.decoded = {{.bytes = "<s>"}, {.bytes = "</s>"}}, .metaspace = Metaspace{}};
  spec.model.byte_tokens.fill(kNoToken);
  apply_tokenizer_config(path, /*is_sentencepiece=*/true, spec);
  use_tokenizer(std::move(spec));
}

/// Whatever torch.save() wrote, and each tensor of a dict.
inline void load_torch(const std::filesystem::path& path) {
  const torch::TorchFile file(path);
  if (file.root().kind != torch::Kind::kDict) return;
  for (const std::string_view key : file.keys(file.root(), "the file")) {
    const torch::Value* const value = file.find(file.root(), key, "the file");
    if (value == nullptr || value->kind != torch::Kind::kTensor) continue;
    (void)file.tensor(*value, shown(key));
  }
}

/// "import_npy", "sglang_loads", "coactivation"
inline std::string loader_of(const ImportFormat& format) {
  std::string name = format.name;
  if (format.makes == ImportKind::kTrace) return "import_" + name;
  std::ranges::replace(name, '-', '_');
  return name;
}

struct Loader {
  std::string_view name;
  void (*load)(const std::filesystem::path& path);
};

/// Every loader but those of imports, which are in import_formats().
inline constexpr Loader kLoaders[] = {
    {"safetensors", [](const auto& path) { (void)SafetensorsFile(path); }},
    {"trace", load_trace},
    {"statistics", [](const auto& path) { (void)read_statistics(path); }},
    {"npy", [](const auto& path) { (void)NpyFile(path); }},
    {"json", [](const auto& path) { (void)read_json_file(path); }},
    {"csv", load_csv},
    {"tokenizer_json", [](const auto& path) { use_tokenizer(read_tokenizer_json(path)); }},
    {"sentencepiece", [](const auto& path) { use_tokenizer(read_sentencepiece(path)); }},
    {"tokenizer_config", load_tokenizer_config},
    {"model_config",
     [](const auto& path) { (void)parse_config(read_json_file(path), path.native()); }},
    {"plan", [](const auto& path) { (void)read_plan(path); }},
    {"cluster",
     [](const auto& path) { (void)cluster_from_json(read_json_file(path), path.native()); }},
    {"hardware",
     [](const auto& path) { (void)hardware_from_json(read_json_file(path), path.native()); }},
    {"model", [](const auto& path) { (void)Model(path); }},
    {"torch", load_torch},
    {"recognize", [](const auto& path) { (void)recognize_input(path); }},
};

/// The names of all loaders.
inline std::vector<std::string> loader_names() {
  std::vector<std::string> names;
  for (const Loader& loader : kLoaders) names.emplace_back(loader.name);
  for (const ImportFormat& format : import_formats()) names.push_back(loader_of(format));
  return names;
}

/// Imports `path` for tests: 4 experts, top-2, and placements of the layers 1 and 3 on 2 ranks.
inline void load_import(const ImportFormat& format, const std::filesystem::path& path,
                        const std::filesystem::path& output) {
  ImportRequest request{.format = format.name, .inputs = {path}, .output = output};
  if (format.makes != ImportKind::kStatistics) request.num_experts = 4;
  if (format.name == "sglang") request.num_hidden_layers = 1;
  const bool is_told_top_k = format.makes != ImportKind::kTrace || format.name == "sglang";
  if (is_told_top_k) request.top_k = 2;
  if (format.makes == ImportKind::kPlan) {
    request.layer_indices = {1, 3};
    request.cluster = Cluster{.num_nodes = 1, .ranks_per_node = 2};
  }
  if (format.makes == ImportKind::kStatistics) return void(import_statistics(request));
  if (format.makes == ImportKind::kPlan) return void(import_plan(request));
  import_file(request);
}

/// Loads `path` with the loader of this name; importers of traces write to `output`.
inline void load(const std::string& name, const std::filesystem::path& path,
                 const std::filesystem::path& output) {
  for (const Loader& loader : kLoaders) {
    if (name == loader.name) return loader.load(path);
  }
  for (const ImportFormat& format : import_formats()) {
    if (name == loader_of(format)) return load_import(format, path, output);
  }
  throw std::logic_error("there is no loader " + name);
}

}  // namespace c2r::testing
