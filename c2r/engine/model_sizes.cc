// Adds up the sizes of a model's tensors.
#include "c2r/engine/model_sizes.h"

namespace c2r {
namespace {

std::int64_t attention_weights(const ModelConfig& config) {
  const std::int64_t queries = config.num_heads * config.head_dim;
  const std::int64_t keys = config.num_kv_heads * config.head_dim;
  std::int64_t sum = 2 * config.hidden * (queries + keys);
  if (config.family->has_qkv_bias) sum += queries + 2 * keys;
  if (config.family->qk_norm == QkNorm::kPerHead) sum += 2 * config.head_dim;
  if (config.family->qk_norm == QkNorm::kWholeWidth) sum += queries + keys;
  return sum;
}

// Of a layer with experts, without the routed experts themselves.
std::int64_t router_weights(const ModelConfig& config) {
  const std::int64_t experts = config.num_experts, shared = config.shared_intermediate;
  std::int64_t sum = experts * config.hidden;
  if (config.family->gate == GateKind::kTanhMlp) sum += experts * experts;
  if (!config.family->gate_noise.empty()) sum += experts * config.hidden;
  if (config.family->has_shared_expert) sum += (3 * shared + 1) * config.hidden;
  return sum;
}

}  // namespace

ModelSizes sizes_of(const ModelConfig& config) {
  const std::int64_t hidden = config.hidden, num_layers = config.num_layers;
  const std::int64_t num_dense = num_layers - config.num_moe_layers();
  const std::int64_t embeddings = config.vocab_size * hidden;
  std::int64_t routed = 0, unchosen = 0;
  for (std::int64_t layer = 0; layer < config.num_moe_layers(); ++layer) {
    std::int64_t in_layer = 0;
    for (const std::int64_t width : config.intermediate.row(layer)) in_layer += 3 * hidden * width;
    routed += in_layer;
    const std::int64_t bytes = in_layer * config.weight_bytes;
    unchosen += bytes - bytes * config.top_k / config.num_experts;
  }
  const std::int64_t others = num_layers * (2 * hidden + attention_weights(config)) +
                              config.num_moe_layers() * router_weights(config) +
                              num_dense * 3 * hidden * config.dense_intermediate + hidden +
                              (config.has_tied_embeddings ? 1 : 2) * embeddings;
  const std::int64_t rows_not_read = config.has_tied_embeddings ? 0 : embeddings;
  const std::int64_t all = (routed + others) * config.weight_bytes;
  return {.weight_bytes = all,
          .expert_bytes = routed * config.weight_bytes,
          .bytes_per_token = all - unchosen - rows_not_read * config.weight_bytes,
          .kv_bytes_per_token = 4 * num_layers * config.num_kv_heads * config.head_dim};
}

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
