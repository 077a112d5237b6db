// Every loader by name, for the tests of broken files and the fuzzers.
#pragma once

#include <algorithm>
#include <filesystem>
#include <stdexcept>
#include <string>

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
#include "c2r/plan/engines/engine.h"
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

/// A placement of another engine, after a line that names its export target.
inline void load_placement(const std::filesystem::path& path) {
  const std::string text = read_text_file(path);
  const std::size_t end = std::min(text.find('\n'), text.size());
  const PlacementFile& file = find_export_target(text.substr(0, end)).file;
  const MapShape shape{.num_experts = 4, .ep_size = 2, .layer_indices = {1, 3}};
  (void)read_placements(file, text.substr(std::min(end + 1, text.size())), shape, path.native());
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

/// Loads `path` with the loader of this name; importers write to `output`.
inline void load(const std::string& loader, const std::filesystem::path& path,
                 const std::filesystem::path& output) {
  if (loader == "safetensors") return void(SafetensorsFile(path));
  if (loader == "trace") return load_trace(path);
  if (loader == "statistics") return void(read_statistics(path));
  if (loader == "npy") return void(NpyFile(path));
  if (loader == "json") return void(read_json_file(path));
  if (loader == "csv") return load_csv(path);
  if (loader == "tokenizer_json") return use_tokenizer(read_tokenizer_json(path));
  if (loader == "sentencepiece") return use_tokenizer(read_sentencepiece(path));
  if (loader == "tokenizer_config") return load_tokenizer_config(path);
  if (loader == "model_config") return void(parse_config(read_json_file(path), path.native()));
  if (loader == "plan") return void(read_plan(path));
  if (loader == "cluster") return void(cluster_from_json(read_json_file(path), path.native()));
  if (loader == "placement") return load_placement(path);
  if (loader == "model") return void(Model(path));
  if (loader == "torch") return load_torch(path);
  if (loader == "recognize") return void(recognize_input(path));
  for (const ImportFormat& format : import_formats()) {
    if (loader != loader_of(format)) continue;
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
    return void(import_file(request));
  }
  throw std::logic_error("there is no loader " + loader);
}

}  // namespace c2r::testing
