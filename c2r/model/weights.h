// The weights of a decoder, found in a checkpoint by the tensor names of its family.
#pragma once

#include <optional>
#include <vector>

#include "c2r/experts/expert_mlp.h"
#include "c2r/model/checkpoint.h"
#include "c2r/model/config.h"

namespace c2r {

struct AttentionWeights {
  RowsView q;                                 // [num_heads * head_dim, hidden]
  RowsView k, v;                              // [num_kv_heads * head_dim, hidden]
  RowsView o;                                 // [hidden, num_heads * head_dim]
  std::vector<float> q_bias, k_bias, v_bias;  // empty if the family has no biases
  std::vector<float> q_norm, k_norm;  // [head_dim] or [width of q or k]; empty without norms
};

struct MoeWeights {
  RowsView gate;         // [num_experts, hidden]
  RowsView second_gate;  // [num_experts, num_experts]; empty unless GateKind::kTanhMlp
  std::vector<ExpertWeights> experts;   // [num_experts]
  std::optional<ExpertWeights> shared;  // the expert that computes every token
  RowsView shared_gate;                 // [1, hidden]
};

struct LayerWeights {
  std::vector<float> input_norm, post_attention_norm;  // [hidden]
  AttentionWeights attention;
  std::optional<MoeWeights> moe;  // of an MoE layer
  ExpertWeights dense;            // the MLP of a layer without `moe`
};

/// Views of a checkpoint, which must outlive them.
struct ModelWeights {
  RowsView embeddings, output;    // [vocab_size, hidden]
  std::vector<float> final_norm;  // [hidden]
  std::vector<LayerWeights> layers;
};

/// Finds and checks all tensors of the model.
/// @throws Error(kInvalidFile) if a tensor is missing, has another type or shape, or is not used;
///         if the embeddings are tied, but there is another output projection
/// Cost: reads no weights, but compares the output projection of a tied model that stores one.
ModelWeights find_weights(const ModelConfig& config, Checkpoint& checkpoint);

}  // namespace c2r
