// The weights of a decoder, by the names of its family.
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
  std::vector<float> q_bias, k_bias, v_bias;  // empty without biases
  std::vector<float> q_norm, k_norm;          // [head_dim], or of the whole width; empty without
};

struct MoeWeights {
  RowsView gate;         // [num_experts, hidden]
  RowsView second_gate;  // [num_experts, num_experts]; no data unless GateKind::kTanhMlp
  std::vector<ExpertWeights> experts;   // [num_experts]
  std::optional<ExpertWeights> shared;  // computes every token
  RowsView shared_gate;                 // [1, hidden]
};

struct LayerWeights {
  std::vector<float> input_norm, post_attention_norm;  // [hidden]
  AttentionWeights attention;
  std::optional<MoeWeights> moe;  // or
  ExpertWeights dense;            // one MLP for every token
};

/// Views into a checkpoint, which must outlive them.
struct ModelWeights {
  RowsView embeddings, output;    // [vocab_size, hidden]
  std::vector<float> final_norm;  // [hidden]
  std::vector<LayerWeights> layers;
};

/// Finds and checks every tensor of the model.
/// @throws Error(kInvalidFile) if one is missing, has another type or shape, or is left over
ModelWeights find_weights(const ModelConfig& config, Checkpoint& checkpoint);

}  // namespace c2r
