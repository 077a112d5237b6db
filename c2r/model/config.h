// A model's hyperparameters, from the config.json of its checkpoint.
//
// Strict: a key that we neither use nor know to have no influence on results is an error that names
// it, unless its value is null or false. A model that runs is the model that the file describes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
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
  std::int32_t num_heads = 0, num_kv_heads = 0;  // a KV head serves num_heads / num_kv_heads
  std::int64_t head_dim = 0;                     // even
  std::int64_t max_positions = 0;                // longest sequence
  float rms_norm_eps = 0;
  double rope_theta = 0;
  std::optional<float> clip_qkv;     // queries, keys and values are clamped to [-clip, clip]
  bool has_tied_embeddings = false;  // the output projection is the embedding matrix
  std::vector<TokenId> eos_ids;      // tokens that end a text

  std::int32_t num_experts = 0, top_k = 0;
  bool norm_topk_prob = false;
  std::vector<std::int32_t> moe_layers;  // indices of the layers with experts, ascending
  Matrix<std::int64_t> intermediate;     // [num_moe_layers, num_experts]
  std::vector<float> routing_scale;      // [num_moe_layers], multiplies the weights
  std::int64_t dense_intermediate = 0;   // of layers without experts; 0: there are none
  std::int64_t shared_intermediate = 0;  // of the shared expert; 0: there is none

  // Collaboration-constrained routing: one constraint for each MoE layer, or none at all.
  std::vector<CollaborationConstraint> constraints;

  std::int64_t num_moe_layers() const { return std::ssize(moe_layers); }
  bool is_moe(std::int32_t layer) const;
};

/// @param place what `json` is from, for messages
/// @throws Error(kInvalidFile), Error(kUnsupported), naming the key, its value and the allowed ones
ModelConfig parse_config(const Json& json, std::string_view place);

/// Checks that `plan` is for the model's layers and experts. @param place names it in messages
/// @throws Error(kInvalidFile)
void check_plan_is_for(const Plan& plan, std::string_view place, const ModelConfig& config);

/// Gives the config the constraints of `plan`. One without lists leaves the config's as they are: a
/// placement does not change a model.
/// @returns whether the config had lists, which the plan's replaced
/// @throws Error(kInvalidFile) as check_plan_is_for()
bool apply_plan(const Plan& plan, std::string_view place, ModelConfig& config);

/// How the `moe_layer`-th MoE layer routes.
RoutingPolicy routing_policy(const ModelConfig& config, std::int64_t moe_layer);

}  // namespace c2r
