// FLAME-MoE's captures of its router: a folder of one training step with a folder for each MoE
// layer, named by the layer's number, and in each the same files NAME.pt, torch.save() of the pair
// (scores, indices), [num_tokens, top_k] each. Row t of NAME.pt is the same token in every layer,
// and one NAME is one sequence. https://github.com/cmu-flame/FLAME-MoE
#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "c2r/core/error.h"
#include "c2r/core/parse_integer.h"
#include "c2r/import/formats_internal.h"
#include "c2r/import/torch/torch_file_internal.h"
#include "c2r/import/trace_builder_internal.h"
#include "c2r/routing/routing.h"

namespace c2r {
namespace {

using torch::TensorData;
using torch::TorchFile;

// The least weight that a trace's 16 bits round to infinity.
constexpr float kFlameRoundsToInfinity = 65520;

std::vector<std::filesystem::path> entries_of(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> paths;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    paths.push_back(entry->path());
  }
  C2R_REQUIRE(!error, kInvalidFile, "cannot read the folder '{}': {}", folder.string(),
              error.message());
  std::ranges::sort(paths);
  return paths;
}

// "7" and "layer_07" -> 7.
std::optional<std::int32_t> layer_of_folder(std::string name) {
  if (name.starts_with("layer_")) name.erase(0, 6);
  const auto layer = parse_integer(name);
  if (!layer || *layer < 0 || *layer > kMaxLayerIndex) return std::nullopt;
  return static_cast<std::int32_t>(*layer);
}

using LayerFolders = std::map<std::int32_t, std::filesystem::path>;

LayerFolders layer_folders(const std::filesystem::path& step) {
  LayerFolders folders;
  for (const auto& path : entries_of(step)) {
    const auto layer = layer_of_folder(path.filename().string());
    if (!layer || !std::filesystem::is_directory(path)) continue;
    C2R_REQUIRE(folders.emplace(*layer, path).second, kInvalidFile,
                "{}: has two folders of layer {}", step.string(), *layer);
  }
  C2R_REQUIRE(!folders.empty(), kInvalidFile,
              "{}: has no folder of a layer, such as 2 or layer_02; give the folder of one step",
              step.string());
  return folders;
}

std::vector<std::string> capture_names(const LayerFolders& folders) {
  std::vector<std::string> names;
  for (const auto& [layer, folder] : folders) {
    std::vector<std::string> of_layer;
    for (const auto& path : entries_of(folder)) {
      if (path.extension() == ".pt") of_layer.push_back(path.filename().string());
    }
    if (names.empty()) names = of_layer;
    C2R_REQUIRE(!of_layer.empty() && of_layer == names, kInvalidFile,
                "{}: has {} .pt files, which are not those of layer {}", folder.string(),
                of_layer.size(), folders.begin()->first);
  }
  return names;
}

// The choices of a sequence in one layer, [num_tokens, top_k] each.
struct Capture {
  std::int64_t num_tokens = 0, top_k = 0;
  std::vector<ExpertId> topk_idx;
  std::vector<float> topk_weights;
};

Capture read_capture(const std::filesystem::path& path, std::int32_t num_experts) {
  const TorchFile file(path);
  const auto pair = file.items(file.root(), "what the file holds");
  C2R_REQUIRE(pair.size() == 2, kInvalidFile,
              "{}: holds {} values, but must hold the pair (scores, indices)", file.path(),
              pair.size());
  const TensorData scores = file.tensor(pair[0], "scores"),
                   indices = file.tensor(pair[1], "indices");
  const NpyView &weights = scores.array(), &ids = indices.array();
  C2R_REQUIRE(is_integer(ids.dtype) && ids.shape.size() == 2, kInvalidFile,
              "{}: indices are {} {}, but must be integers [num_tokens, top_k]", file.path(),
              dtype_name(ids.dtype), shape_text(ids.shape));
  C2R_REQUIRE(element_type_of(weights.dtype) && weights.shape == ids.shape, kInvalidFile,
              "{}: scores are {} {}, but must be floats {} like the indices", file.path(),
              dtype_name(weights.dtype), shape_text(weights.shape), shape_text(ids.shape));
  Capture capture{.num_tokens = ids.shape[0], .top_k = ids.shape[1]};
  for (std::int64_t i = 0; i < ids.num_elements(); ++i) {
    const std::int64_t id = integer_at(ids, i);
    const float weight = float_at(weights, i);
    C2R_REQUIRE(0 <= id && id < num_experts, kInvalidFile,
                "{}: token {}: expert {} is not in [0, {}]", file.path(), i / capture.top_k, id,
                num_experts - 1);
    C2R_REQUIRE(std::abs(weight) < kFlameRoundsToInfinity, kInvalidFile,  // nor is it NaN
                "{}: token {}: a score is {}, but must fit into 16 bits", file.path(),
                i / capture.top_k, weight);
    capture.topk_idx.push_back(ExpertId{static_cast<std::int32_t>(id)});
    capture.topk_weights.push_back(weight);
  }
  return capture;
}

void add_step(const std::filesystem::path& step, TraceBuilder& builder) {
  const LayerFolders folders = layer_folders(step);
  std::vector<std::int32_t> layers;
  for (const auto& [layer, folder] : folders) layers.push_back(layer);
  for (const std::string& name : capture_names(folders)) {
    std::int64_t position = 0, num_tokens = 0;
    for (const auto& [layer, folder] : folders) {
      const std::string path = (folder / name).string();
      const Capture capture = read_capture(path, builder.request().num_experts);
      builder.set_top_k(capture.top_k, path);
      if (position == 0) {
        builder.open(layers, step.string(), /*has_weights=*/true);
        if (capture.num_tokens > 0) builder.writer().start_sequence();
        num_tokens = capture.num_tokens;
      }
      C2R_REQUIRE(capture.num_tokens == num_tokens, kInvalidFile,
                  "{}: has {} tokens, but in layer {} there are {}", path, capture.num_tokens,
                  layers[0], num_tokens);
      builder.writer().append(position++, capture.topk_idx, capture.topk_weights, path);
    }
  }
}

ImportResult write_flame_moe_trace(const ImportRequest& request) {
  TraceBuilder builder(request);
  for_each_input(request, [&](const std::filesystem::path& path) { add_step(path, builder); });
  return builder.finish();
}

}  // namespace

ImportFormat import_rows::flame_moe() {
  return {.name = "flame-moe",
          .summary = "FLAME-MoE's captures: the folder of a step with LAYER/NAME.pt",
          .makes = ImportKind::kTrace,
          .needs = {ImportField::kNumExperts},
          .uses = {ImportField::kTopK, ImportField::kLayerIndices},
          .write_trace = write_flame_moe_trace};
}

}  // namespace c2r
