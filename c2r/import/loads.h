// Importers of counts: what engines and papers publish where there is no trace.
//
// SGLang's stat dumps and TensorRT-LLM's statistics hold expert loads only, so their statistics
// have no pairs and no collaboration can be derived from them. Published co-activation matrices
// hold pairs; the loads they leave out follow from them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "c2r/collaboration/collaboration.h"

namespace c2r {

/// What to import, and what the input does not say about itself.
struct LoadsRequest {
  std::filesystem::path input;
  std::string model;       // free text for the header
  std::int32_t top_k = 0;  // required, except by TensorRT-LLM, which states it
  // The model's own index of each MoE layer of the input. Empty: as the input says, else 0, 1, ...
  std::vector<std::int32_t> layer_indices;
};

// All importers @throw Error(kInvalidFile), naming file and layer, if the input is broken or its
// counts cannot be those of tokens that chose top_k distinct experts each.

/// SGLang's `logical_count` [num_steps, num_layers, num_experts], or without the steps, which are
/// added up: an object with that key, made from the `.pt` file of the recorder's modes stat and
/// stat_approx as docs/formats.md shows. The layer axis has all layers of the model; those without
/// any token are dense and left out. A layer's tokens are its loads' sum over top_k.
CollaborationStatistics import_sglang_loads(const LoadsRequest& request);

/// TensorRT-LLM's EXPERT_STATISTIC_PATH: a folder with `meta_info.json` and `rank0.safetensors`,
/// `rank1.safetensors`, ... of tensors "{iteration}_{layer}", I64 [num_experts], which are added
/// up. Other files are ignored. A missing rank is an error.
CollaborationStatistics import_tensorrt_llm_loads(const LoadsRequest& request);

/// A .npy array of integers [num_layers, num_experts, num_experts]: how many tokens chose both
/// experts, as C2R's authors publish it, with 0 or -1 on the diagonal. A token that chose an expert
/// chose top_k - 1 others, so the load is the row's sum over top_k - 1, exactly.
CollaborationStatistics import_coactivation(const LoadsRequest& request);

}  // namespace c2r
