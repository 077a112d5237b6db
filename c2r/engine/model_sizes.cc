// Adds up the sizes of a model's tensors.
#include "c2r/engine/model_sizes.h"

namespace c2r {

ModelSizes sizes_of(const Model& model) {
  const ModelConfig& config = model.config();
  ModelSizes sizes{.weight_bytes = model.checkpoint().num_bytes(),
                   .kv_bytes_per_token =
                       std::int64_t{4} * config.num_layers * config.num_kv_heads * config.head_dim};
  std::int64_t unchosen = 0;
  for (const LayerWeights& layer : model.weights().layers) {
    if (!layer.moe) continue;
    std::int64_t bytes = 0;
    for (const ExpertWeights& expert : layer.moe->experts) bytes += expert.num_bytes();
    sizes.expert_bytes += bytes;
    unchosen += bytes - bytes * config.top_k / config.num_experts;
  }
  const RowsView& embeddings = model.weights().embeddings;
  const std::int64_t rows_not_read = config.has_tied_embeddings ? 0 : embeddings.num_bytes();
  sizes.bytes_per_token = sizes.weight_bytes - unchosen - rows_not_read;
  return sizes;
}

}  // namespace c2r
