// Finds all tensors of a decoder in a checkpoint by their names and shapes.
#include "c2r/model/weights.h"

#include <fmt/core.h>

#include <algorithm>

#include "c2r/core/error.h"

namespace c2r {
namespace {

constexpr const char* kEmbeddings = "model.embed_tokens.weight";
constexpr const char* kOutput = "lm_head.weight";

// Finds the tensors of one layer.
class LayerFinder {
 public:
  LayerFinder(const ModelConfig& config, Checkpoint& checkpoint, std::int32_t layer)
      : config_(config), checkpoint_(checkpoint), prefix_(fmt::format("model.layers.{}.", layer)) {}

  AttentionWeights attention() {
    const std::int64_t queries = config_.num_heads * config_.head_dim;
    const std::int64_t keys = config_.num_kv_heads * config_.head_dim;
    AttentionWeights w{.q = matrix("self_attn.q_proj.weight", queries, config_.hidden),
                       .k = matrix("self_attn.k_proj.weight", keys, config_.hidden),
                       .v = matrix("self_attn.v_proj.weight", keys, config_.hidden),
                       .o = matrix("self_attn.o_proj.weight", config_.hidden, queries)};
    if (config_.family->has_qkv_bias) {
      w.q_bias = vector("self_attn.q_proj.bias", queries);
      w.k_bias = vector("self_attn.k_proj.bias", keys);
      w.v_bias = vector("self_attn.v_proj.bias", keys);
    }
    if (config_.family->qk_norm != QkNorm::kNone) {
      const bool is_per_head = config_.family->qk_norm == QkNorm::kPerHead;
      w.q_norm = vector("self_attn.q_norm.weight", is_per_head ? config_.head_dim : queries);
      w.k_norm = vector("self_attn.k_norm.weight", is_per_head ? config_.head_dim : keys);
    }
    return w;
  }

  MoeWeights moe(std::int64_t moe_layer) {
    const MoeTensorNames& names = config_.family->tensors;
    MoeWeights w{.gate = matrix(names.gate, config_.num_experts, config_.hidden)};
    if (config_.family->gate == GateKind::kTanhMlp) {
      w.second_gate = matrix(names.second_gate, config_.num_experts, config_.num_experts);
    }
    for (std::int32_t e = 0; e < config_.num_experts; ++e) {
      const auto name = [e](std::string_view pattern) {
        return fmt::format(fmt::runtime(pattern), e);
      };
      w.experts.push_back(mlp(name(names.expert_gate), name(names.expert_up),
                              name(names.expert_down), config_.intermediate(moe_layer, e)));
    }
    if (config_.family->has_shared_expert) {
      w.shared = mlp("mlp.shared_expert.gate_proj.weight", "mlp.shared_expert.up_proj.weight",
                     "mlp.shared_expert.down_proj.weight", config_.shared_intermediate);
      w.shared_gate = matrix("mlp.shared_expert_gate.weight", 1, config_.hidden);
    }
    return w;
  }

  ExpertWeights mlp(std::string_view gate, std::string_view up, std::string_view down,
                    std::int64_t intermediate) {
    return {.gate = matrix(gate, intermediate, config_.hidden),
            .up = matrix(up, intermediate, config_.hidden),
            .down = matrix(down, config_.hidden, intermediate)};
  }

  std::vector<float> vector(std::string_view name, std::int64_t size) {
    return checkpoint_.vector(prefix_ + std::string(name), size);
  }

 private:
  RowsView matrix(std::string_view name, std::int64_t num_outputs, std::int64_t num_inputs) {
    return checkpoint_.matrix(prefix_ + std::string(name), num_outputs, num_inputs);
  }

  const ModelConfig& config_;
  Checkpoint& checkpoint_;
  std::string prefix_;
};

// Of two tied matrices one is stored; safetensors' save_model() keeps the first name of the
// alphabet.
RowsView embeddings_of(const ModelConfig& config, Checkpoint& checkpoint) {
  const bool is_output =
      config.has_tied_embeddings && !checkpoint.has(kEmbeddings) && checkpoint.has(kOutput);
  return checkpoint.matrix(is_output ? kOutput : kEmbeddings, config.vocab_size, config.hidden);
}

// Tied models may store the output projection, too, but only as a copy of the embeddings.
RowsView output_projection(const ModelConfig& config, Checkpoint& checkpoint,
                           const RowsView& embeddings) {
  const bool are_both_stored = checkpoint.has(kOutput) && checkpoint.has(kEmbeddings);
  if (config.has_tied_embeddings && !are_both_stored) return embeddings;
  const RowsView output = checkpoint.matrix(kOutput, config.vocab_size, config.hidden);
  if (!config.has_tied_embeddings) return output;
  const TensorView &one = checkpoint.tensor(kOutput), &other = checkpoint.tensor(kEmbeddings);
  C2R_REQUIRE(one.dtype == other.dtype && std::ranges::equal(one.bytes, other.bytes), kInvalidFile,
              "{}: tie_word_embeddings is true, but {} differs from {}; correct "
              "tie_word_embeddings in config.json, or remove the tensor",
              checkpoint.folder(), kOutput, kEmbeddings);
  return embeddings;
}

}  // namespace

ModelWeights find_weights(const ModelConfig& config, Checkpoint& checkpoint) {
  ModelWeights weights;
  weights.embeddings = embeddings_of(config, checkpoint);
  std::int64_t moe_layer = 0;
  for (std::int32_t layer = 0; layer < config.num_layers; ++layer) {
    LayerFinder find(config, checkpoint, layer);
    LayerWeights w{
        .input_norm = find.vector("input_layernorm.weight", config.hidden),
        .post_attention_norm = find.vector("post_attention_layernorm.weight", config.hidden),
        .attention = find.attention()};
    if (config.is_moe(layer)) {
      w.moe = find.moe(moe_layer++);
    } else {
      w.dense = find.mlp("mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight",
                         config.dense_intermediate);
    }
    weights.layers.push_back(std::move(w));
  }
  weights.final_norm = checkpoint.vector("model.norm.weight", config.hidden);
  weights.output = output_projection(config, checkpoint, weights.embeddings);
  // Old checkpoints store the frequencies of rotary positions, which follow from rope_theta.
  std::vector<std::string_view> unused = {".rotary_emb.inv_freq"};
  if (!config.family->gate_noise.empty()) unused.push_back(config.family->gate_noise);
  checkpoint.check_all_used(unused);
  return weights;
}

}  // namespace c2r
