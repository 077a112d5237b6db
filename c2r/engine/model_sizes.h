// Computes how many bytes a model's weights and caches take, from its config and checkpoint.
#pragma once

#include <cstdint>

#include "c2r/model/model.h"

namespace c2r {

struct ModelSizes {
  std::int64_t weight_bytes = 0;  // of all tensors
  std::int64_t expert_bytes = 0;  // of the routed experts
  // Of the weights that the forward pass of one token reads: all but the experts that it does not
  // choose and the other tokens' embeddings.
  std::int64_t bytes_per_token = 0;
  std::int64_t kv_bytes_per_token = 0;  // of the keys and values of one token, in bf16
};

/// @returns the sizes that the config and the shapes of the tensors give
/// Cost: reads no weights.
ModelSizes sizes_of(const Model& model);

/// The same of a checkpoint that has the tensors of `config`, all of the type that config.json
/// names, for a model whose checkpoint is not there.
ModelSizes sizes_of(const ModelConfig& config);

}  // namespace c2r
