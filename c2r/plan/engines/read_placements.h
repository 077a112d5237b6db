// Placements out of other engines' files, and so the check of what export.h writes for them.
//
// Every reader wants to know what such files leave out (MapShape) and gives one placement for each
// MoE layer, in order. Every rank has the same number of slots; slot p is on rank
// p / (num_slots / ep_size). All throw Error(kInvalidFile), naming the layer and the expert; a map
// that holds an expert twice on a rank, as EPLB's may, is refused like any invalid placement.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "c2r/placement/placement.h"

namespace c2r {

struct MapShape {
  std::int32_t num_experts = 0;
  std::int32_t ep_size = 0;
  std::vector<std::int32_t> layer_indices;  // [num_layers], the model's own index of each MoE layer

  std::int64_t num_layers() const { return std::ssize(layer_indices); }
};

/// SGLang `--init-expert-location`: {"physical_to_logical_map": [num_hidden_layers][num_slots]} and
/// no other key, because SGLang passes keys on as arguments. Rows count dense layers; theirs are
/// not looked at.
std::vector<Placement> import_sglang(std::string_view text, const MapShape& shape,
                                     std::string_view place);

/// TensorRT-LLM's load balancer yaml: `num_slots`, `layer_updates_per_iter` and
/// `initial_global_assignments` by the model's layer index. Reads the subset of yaml that the
/// exporter writes: one key a line, lists in brackets on one line, comments.
std::vector<Placement> import_tensorrt_llm(std::string_view text, const MapShape& shape,
                                           std::string_view place);

/// vLLM pull request 41141: one JSON line, "initial_global_assignments" by MoE layer ordinal.
std::vector<Placement> import_vllm_41141(std::string_view text, const MapShape& shape,
                                         std::string_view place);

/// vLLM pull request 49572: [num_layers][num_slots], or [num_slots] for every layer.
std::vector<Placement> import_vllm_49572(std::string_view text, const MapShape& shape,
                                         std::string_view place);

/// vllm-ascend `expert_map_path`: a list of layers, each a list of devices. As the engine does, it
/// goes by the order of layers and devices, and insists that their ids say the same.
std::vector<Placement> import_vllm_ascend(std::string_view text, const MapShape& shape,
                                          std::string_view place);

/// EPLB's three results: "physical_to_logical_map" [num_layers][num_slots],
/// "logical_to_physical_map" [num_layers][num_experts][most replicas], -1 = none, and
/// "logical_count" [num_layers][num_experts], which must agree.
std::vector<Placement> import_eplb(std::string_view text, const MapShape& shape,
                                   std::string_view place);

/// A permutation of experts by the model's layer index, for engines that place contiguously:
/// "old_of_new" and its inverse "new_of_old".
std::vector<Placement> import_permutation(std::string_view text, const MapShape& shape,
                                          std::string_view place);

/// omni-infer's pattern, a .npy file of integers [ep_size, num_layers, num_experts]: 1 where the
/// rank holds the expert of the MoE layer, else 0. Experts are put into a rank's slots in ascending
/// order, as the array does not say.
std::vector<Placement> import_omni_infer(std::string_view bytes, const MapShape& shape,
                                         std::string_view place);

}  // namespace c2r
