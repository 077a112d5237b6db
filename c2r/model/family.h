// The differences between model families, as data. docs/models.md says how to add a family.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "c2r/routing/policy.h"

namespace c2r {

enum class GateKind {
  kLinear,   // logits = W x
  kTanhMlp,  // logits = W2 tanh(W1 x)
};

/// RMSNorm of queries and keys before RoPE: none, over each head, or over all heads at once.
enum class QkNorm { kNone, kPerHead, kWholeWidth };

/// Whether a token's weights are divided by their sum.
enum class NormTopk { kNever, kAlways, kFromConfig };

/// Names of tensors in the checkpoint, after "model.layers.N."; "{}" stands for the expert.
struct MoeTensorNames {
  std::string_view gate, second_gate;  // second_gate: for GateKind::kTanhMlp only
  std::string_view expert_gate, expert_up, expert_down;
};

/// A key of config.json and its one supported value, as JSON.
struct RequiredValue {
  std::string_view key, value;
};

struct Family {
  std::string_view model_type;  // in config.json
  std::string_view name;
  // Keys of config.json whose names differ between families.
  std::string_view num_experts_key, top_k_key, intermediate_key;
  MoeTensorNames tensors;
  Scoring scoring = Scoring::kSoftmax;
  NormTopk norm_topk = NormTopk::kFromConfig;
  GateKind gate = GateKind::kLinear;
  QkNorm qk_norm = QkNorm::kNone;
  bool has_qkv_bias = false;
  bool has_shared_expert = false;      // in addition, weighted by sigmoid(W x)
  bool has_dense_layers = false;       // whether decoder_sparse_step and mlp_only_layers are read
  bool is_sliced = false;              // intermediate_key is the sum over experts; size_experts
  bool has_window_switch = false;      // whether use_sliding_window decides about windows
  bool has_clip_qkv = false;           // whether clip_qkv is read
  double default_rope_theta = 10000;   // as transformers, where the config has none
  float default_rms_norm_eps = 1e-6F;  // likewise
  std::span<const RequiredValue> required;    // in addition to those of every family
  std::span<const std::string_view> ignored;  // keys without influence on results
  // Name, as in MoeTensorNames, of a tensor that only training uses, with a row for each expert.
  std::string_view gate_noise;
};

std::span<const Family> families();

/// @param place the file that has the model type, for the message
/// @returns the family of a model type
/// @throws Error(kUnsupported), naming the type and the supported families
const Family& find_family(std::string_view model_type, std::string_view place);

}  // namespace c2r
