// The table of model families, and of families that are known but not supported.
#include "c2r/model/family.h"

#include <algorithm>
#include <iterator>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"
#include "c2r/model/config/unsupported.h"

namespace c2r {
namespace {

constexpr MoeTensorNames kQwenTensors = {.gate = "mlp.gate.weight",
                                         .expert_gate = "mlp.experts.{}.gate_proj.weight",
                                         .expert_up = "mlp.experts.{}.up_proj.weight",
                                         .expert_down = "mlp.experts.{}.down_proj.weight"};

constexpr RequiredValue kQwen2Required[] = {{"qkv_bias", "true"}};

// Published variants of Qwen3-MoE say that they have no shared expert.
constexpr RequiredValue kQwen3Required[] = {{"shared_expert_intermediate_size", "0"},
                                            {"use_qk_norm", "true"}};

constexpr RequiredValue kLlamaMoeRequired[] = {{"gate_type", "\"TopKBalancedNoisyGate\""},
                                               {"gate_network", "\"mlp\""},
                                               {"gate_use_softmax", "true"},
                                               {"calculator_type", "\"UniversalCalculator\""},
                                               {"multiply_gate_scores", "true"}};
// Keys of noise and balance losses in training, and of the capacity of experts, which c2r does not
// limit.
constexpr std::string_view kLlamaMoeIgnored[] = {"gates",
                                                 "gate_add_noise",
                                                 "gate_balance_loss_weight",
                                                 "gate_noise_epsilon",
                                                 "gate_use_balance",
                                                 "capacity_factor",
                                                 "drop_tokens",
                                                 "dropped_padding"};

constexpr Family kFamilies[] = {
    {.model_type = "llama_moe",
     .name = "LLaMA-MoE",
     .num_experts_key = "num_experts",
     .top_k_key = "num_selects",
     .intermediate_key = "intermediate_size",
     .tensors = {.gate = "mlp.gate.gate_network.0.weight",
                 .second_gate = "mlp.gate.gate_network.2.weight",
                 .expert_gate = "mlp.calculator.experts.weight_gate.{}",
                 .expert_up = "mlp.calculator.experts.weight_up.{}",
                 .expert_down = "mlp.calculator.experts.weight_down.{}"},
     .scoring = Scoring::kSoftmaxOverChosen,
     .norm_topk = NormTopk::kNever,
     .gate = GateKind::kTanhMlp,
     .is_sliced = true,
     .required = kLlamaMoeRequired,
     .ignored = kLlamaMoeIgnored,
     .gate_noise = "mlp.gate.weight_noise.weight"},
    {.model_type = "mixtral",
     .name = "Mixtral",
     .num_experts_key = "num_local_experts",
     .top_k_key = "num_experts_per_tok",
     .intermediate_key = "intermediate_size",
     .tensors = {.gate = "block_sparse_moe.gate.weight",
                 .expert_gate = "block_sparse_moe.experts.{}.w1.weight",
                 .expert_up = "block_sparse_moe.experts.{}.w3.weight",
                 .expert_down = "block_sparse_moe.experts.{}.w2.weight"},
     .norm_topk = NormTopk::kAlways,
     .default_rope_theta = 1e6,
     .default_rms_norm_eps = 1e-5F},
    {.model_type = "olmoe",
     .name = "OLMoE",
     .num_experts_key = "num_experts",
     .top_k_key = "num_experts_per_tok",
     .intermediate_key = "intermediate_size",
     .tensors = kQwenTensors,
     .qk_norm = QkNorm::kWholeWidth,
     .has_clip_qkv = true,
     .default_rms_norm_eps = 1e-5F},
    {.model_type = "qwen2_moe",
     .name = "Qwen2-MoE",
     .num_experts_key = "num_experts",
     .top_k_key = "num_experts_per_tok",
     .intermediate_key = "moe_intermediate_size",
     .tensors = kQwenTensors,
     .has_qkv_bias = true,
     .has_shared_expert = true,
     .has_dense_layers = true,
     .has_window_switch = true,
     .required = kQwen2Required},
    {.model_type = "qwen3_moe",
     .name = "Qwen3-MoE",
     .num_experts_key = "num_experts",
     .top_k_key = "num_experts_per_tok",
     .intermediate_key = "moe_intermediate_size",
     .tensors = kQwenTensors,
     .qk_norm = QkNorm::kPerHead,
     .has_dense_layers = true,
     .has_window_switch = true,
     .required = kQwen3Required},
};

}  // namespace

std::span<const Family> families() {
  return kFamilies;
}

const Family& find_family(std::string_view model_type, std::string_view place) {
  const auto* const family = std::ranges::find(kFamilies, model_type, &Family::model_type);
  if (family != std::end(kFamilies)) return *family;
  const std::string why_not = why_not_family(model_type);
  C2R_REQUIRE(why_not.empty(), kUnsupported, "{}: model_type is '{}', which {}", place, model_type,
              why_not);
  std::string known;
  for (const Family& f : kFamilies)
    known += (known.empty() ? "" : ", ") + std::string(f.model_type);
  C2R_THROW(kUnsupported, "{}: model_type is '{}', but must be one of {}", place, shown(model_type),
            known);
}

}  // namespace c2r
