// A plan's placement in the form that another engine loads.
//
// Each target numbers layers in its own way, and nearly all of them stay silent when a file is
// wrong: so what is written is read back and compared with the plan before it is handed out.
//
// | target         | file                                  | layers                               |
// | sglang         | .json, physical_to_logical_map        | rows of every hidden layer           |
// | tensorrt-llm   | .yaml, initial_global_assignments     | keys: the model's layer index        |
// | vllm-41141     | .jsonl, initial_global_assignments    | keys: MoE layers from "0"            |
// | vllm-49572     | .json, [num_layers][num_slots]        | rows of MoE layers                   |
// | vllm-ascend    | .json, layer_list of device_list      | layer_id: MoE layers from 0          |
// | omni-infer     | .npy, int32 0/1 [ranks, layers, E]    | axis of MoE layers                   |
// | eplb           | .json, EPLB's three results           | rows of MoE layers                   |
// | permutation    | .json, old_of_new and new_of_old      | keys: the model's layer index        |
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/placement/cost/volume.h"
#include "c2r/plan/engines/read_placements.h"
#include "c2r/plan/plan.h"

namespace c2r {

struct ExportOptions {
  /// Hidden layers of the model, dense ones included. Only sglang asks; without it the last MoE
  /// layer is taken for the last layer.
  std::optional<std::int32_t> num_hidden_layers;
  /// The engine's all-to-all backend, by the engine's name for it; empty = its default. Decides
  /// which warnings there are, not what is written; of one that we do not know there is a warning.
  std::string backend;
};

struct Export {
  std::string bytes;                  // the file
  std::vector<std::string> warnings;  // for the user: what the engine would not say
};

struct ExportTarget {
  std::string_view name;
  std::string_view suffix;  // of the file's name, with the dot
  /// How the engine, on as many ranks as the plan has, is told to load it from the file at `path`.
  std::string (*usage)(const Plan& plan, std::string_view path);
  std::string (*write)(const Plan& plan, const ExportOptions& options);
  std::vector<Placement> (*read)(std::string_view bytes, const MapShape& shape,
                                 std::string_view place);
  bool keeps_slot_order = true;  // false: only which rank holds an expert
};

std::span<const ExportTarget> export_targets();
/// @throws Error(kInvalidArgument), listing the names
const ExportTarget& find_export_target(std::string_view name);

/// @throws Error(kInvalidArgument) if the plan is not valid or has fewer hidden layers than it
///         names, Error(kUnsupported) if the target cannot
///         express it: replicas in a permutation, or layers with different numbers of slots
Export export_plan(const ExportTarget& target, const Plan& plan, const ExportOptions& options);

/// Checks that `bytes` are a valid file for the target and say what the plan says.
/// @throws Error(kInvalidFile), naming what is not valid, or the first layer and rank that differ
void validate_export(const ExportTarget& target, std::string_view bytes, const Plan& plan,
                     std::string_view place);

/// How copies are sent by a target's engine with a backend; nothing if we do not know it.
/// @param backend empty = the engine's default
std::optional<CopyMode> copy_mode_of_backend(const ExportTarget& target, std::string_view backend);

/// The rule that describes how a target's engine chooses among replicas; nothing if we do not know.
std::optional<ReplicaRule> replica_rule_of(const ExportTarget& target);

/// What a reader of the target's file must be told about the plan.
MapShape map_shape(const Plan& plan);

}  // namespace c2r
