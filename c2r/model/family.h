// What differs between families of models, as data. docs/models.md says how to add one.
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

/// Names in the checkpoint, below "model.layers.N."; "{}" is the expert.
struct MoeTensorNames {
  std::string_view gate, second_gate;  // the second of kTanhMlp only
  std::string_view expert_gate, expert_up, expert_down;
};

/// A key of config.json and the one value, as JSON, that we can run.
struct RequiredValue {
  std::string_view key, value;
};

struct Family {
  std::string_view model_type;  // in config.json
  std::string_view name;
  // Keys of config.json that families spell differently.
  std::string_view num_experts_key, top_k_key, intermediate_key;
  MoeTensorNames tensors;
  Scoring scoring = Scoring::kSoftmax;
  NormTopk norm_topk = NormTopk::kFromConfig;
  GateKind gate = GateKind::kLinear;
  QkNorm qk_norm = QkNorm::kNone;
  bool has_qkv_bias = false;
  bool has_shared_expert = false;       // beside the routed ones, weighted by sigmoid(W x)
  bool has_dense_layers = false;        // decoder_sparse_step and mlp_only_layers are read
  bool is_sliced = false;               // intermediate_key is all experts' together; size_experts
  std::string_view default_rope_theta;  // for a config without; empty: it must say
  std::span<const RequiredValue> required;    // beside those of every family
  std::span<const std::string_view> ignored;  // keys without influence on results
  // A tensor of training, as MoeTensorNames: not read, but it has a row for each expert.
  std::string_view gate_noise;
};

std::span<const Family> families();

/// @param place what names the model type, for the message
/// @throws Error(kUnsupported), naming the type and the families there are
const Family& find_family(std::string_view model_type, std::string_view place);

}  // namespace c2r
