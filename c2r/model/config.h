// The hyperparameters of a model, read from the config.json of its checkpoint.
//
// Reading is strict: a key that is neither used nor known to have no influence on results is an
// error that names the key, unless its value is null or false.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/core/matrix.h"
#include "c2r/io/json.h"
#include "c2r/model/family.h"
#include "c2r/plan/plan.h"

namespace c2r {

struct ModelConfig {
  const Family* family = nullptr;
  std::int64_t hidden = 0, vocab_size = 0;
  std::int32_t num_layers = 0;
  std::int32_t num_heads = 0, num_kv_heads = 0;  // num_heads / num_kv_heads heads share a KV head
  std::int64_t head_dim = 0;                     // even
  std::int64_t max_positions = 0;                // longest sequence
  float rms_norm_eps = 0;
  double rope_theta = 0;
  std::optional<float> clip_qkv;     // queries, keys and values are clamped to [-clip, clip]
  bool has_tied_embeddings = false;  // whether the output projection is the embedding matrix
  std::vector<TokenId> eos_ids;      // tokens that end a text

  std::int64_t weight_bytes = 2;  // of one weight, by `dtype`; bf16 if the config does not say

  std::int32_t num_experts = 0, top_k = 0;
  bool norm_topk_prob = false;
  std::vector<std::int32_t> moe_layers;  // indices of the MoE layers, ascending
  Matrix<std::int64_t> intermediate;     // [num_moe_layers, num_experts]
  std::vector<float> routing_scale;      // [num_moe_layers], factor of the routing weights
  std::int64_t dense_intermediate = 0;   // of dense layers; 0: no such layers
  std::int64_t shared_intermediate = 0;  // of the shared expert; 0: no shared expert

  // Settings of generation_config.json that c2r does not carry out, as "key value".
  std::vector<std::string> unused_settings;

  // Of collaboration-constrained routing: [num_moe_layers], or empty without constraints.
  std::vector<CollaborationConstraint> constraints;

  std::int64_t num_moe_layers() const { return std::ssize(moe_layers); }
  bool is_moe(std::int32_t layer) const;
};

/// @param place the file of `json`, for messages
/// @throws Error(kInvalidFile), Error(kUnsupported), naming the key, its value and the allowed ones
ModelConfig parse_config(const Json& json, std::string_view place);

/// Reads config.json of a model's folder, and generation_config.json if it exists, which then says
/// what ends a text. The folder need not have a checkpoint.
/// @throws as parse_config(); Error(kInvalidFile), Error(kUnsupported) if `folder` is no model's
ModelConfig read_config(const std::filesystem::path& folder);

/// Checks that `plan` is for the layers and experts of the model.
/// @param place the file of the plan, for messages
/// @throws Error(kInvalidFile) if it is not
void check_plan_is_for(const Plan& plan, std::string_view place, const ModelConfig& config);

/// Replaces the constraints of the config by those of `plan`. A plan without collaborator lists
/// changes nothing, because a placement does not change a model.
/// @returns whether lists of the config were replaced
/// @throws Error(kInvalidFile) as check_plan_is_for()
bool apply_plan(const Plan& plan, std::string_view place, ModelConfig& config);

/// @returns the policy of the `moe_layer`-th MoE layer
/// @throws Error(kInvalidArgument) if there is no such layer
RoutingPolicy routing_policy(const ModelConfig& config, std::int64_t moe_layer);

}  // namespace c2r
