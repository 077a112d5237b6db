// The engines that c2r makes placements for: one row an engine, with all that c2r knows of it.
//
// A row says which placement files the engine loads and how they are written and read, how each of
// its all-to-all backends sends copies, how it chooses among replicas, and what its user has to
// know before trusting it with such a file.
//
// | engine       | placement file | what it is                           | its layers             |
// | ------------ | -------------- | ------------------------------------ | ---------------------- |
// | sglang       | sglang         | .json, physical_to_logical_map       | every hidden layer     |
// | tensorrt-llm | tensorrt-llm   | .yaml, initial_global_assignments    | the model's own index  |
// | vllm         | vllm-41141     | .jsonl, initial_global_assignments   | MoE layers, from "0"   |
// | vllm         | vllm-49572     | .json, [num_layers][num_slots]       | MoE layers             |
// | vllm-ascend  | vllm-ascend    | .json, layer_list of device_list     | MoE layers, from 0     |
// | omni-infer   | omni-infer     | .npy, int32 0/1 [ranks, layers, E]   | MoE layers             |
// | eplb         | eplb           | .json, EPLB's three results          | MoE layers             |
// | megatron     | permutation    | .json, old_of_new and new_of_old     | the model's own index  |
//
// To add an engine: a file beside this one that makes its row, a line in engine_rows_internal.h,
// one in engine.cc, and its form in tests/malformed.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/placement/cost/replica_rule.h"
#include "c2r/placement/cost/volume.h"
#include "c2r/placement/placement.h"
#include "c2r/plan/plan.h"

namespace c2r {

/// What placement files leave out and their readers have to be told.
struct MapShape {
  std::int32_t num_experts = 0;
  std::int32_t ep_size = 0;
  std::vector<std::int32_t> layer_indices;  // [num_layers], the model's own index of each MoE layer

  std::int64_t num_layers() const { return std::ssize(layer_indices); }
};

/// The shape that a reader of the plan's file has to be told.
MapShape map_shape(const Plan& plan);

/// What a user of the engine decides about a file that is written for it.
struct ExportOptions {
  /// Hidden layers of the model, dense ones included, for files that have a row for each of them.
  /// Without it the last MoE layer is taken for the last layer.
  std::optional<std::int32_t> num_hidden_layers;
  /// The engine's all-to-all backend, by the engine's name for it; empty = its default. It decides
  /// which warnings there are, not what is written; an unknown one has a warning of its own.
  std::string backend;
};

/// A form of placement file that an engine loads.
struct PlacementFile {
  std::string_view name;    // the target of `c2r export`; NAME-placement is the format of an import
  std::string_view suffix;  // of the file's name, with the dot

  /// As export_usage(), of a valid plan.
  std::string (*usage)(const Plan& plan, std::string_view path);

  /// The bytes of the file, of a valid plan whose layers all have as many slots unless
  /// has_slots_by_layer. Called through export_plan().
  /// @throws Error(kUnsupported) if the file cannot express the plan
  std::string (*write)(const Plan& plan, const ExportOptions& options);

  /// One placement for each MoE layer, in order. Called through read_placements(), which checks
  /// the shape.
  std::vector<Placement> (*read)(std::string_view bytes, const MapShape& shape,
                                 std::string_view place);

  std::span<const std::string_view> cautions = {};  // for the user, whatever the backend
  bool has_hidden_layer_rows = false;  // it has a row for each hidden layer, dense ones too
  bool keeps_slot_order = true;        // false: it says only which rank holds an expert
  bool has_slots_by_layer = false;     // layers may have different numbers of slots
};

/// An all-to-all backend of an engine.
struct Backend {
  std::string_view name;  // the engine's own name for it
  CopyMode mode;          // how it sends copies
  // The setting with which it sends one copy for every chosen expert instead; empty = none.
  std::string_view per_expert_setting = {};
};

struct EngineRow {
  std::string_view name;
  std::span<const PlacementFile> files;  // at least one
  // The backends whose way of sending copies is known; the first is the engine's default.
  std::span<const Backend> backends = {};
  // What describes best how it chooses among replicas; nothing if that is not known.
  std::optional<ReplicaRule> replica_rule = {};
};

/// Every engine, in the order of the table above.
std::span<const EngineRow> engines();

/// @returns the engine of that name
/// @throws Error(kInvalidArgument), listing the names
const EngineRow& find_engine(std::string_view name);

/// @returns the engine's backend of that name, its default for an empty name, and null if c2r does
///          not know how the backend sends copies
const Backend* find_backend(const EngineRow& engine, std::string_view name);

/// A placement file with the engine that loads it.
struct ExportTarget {
  const EngineRow& engine;
  const PlacementFile& file;
};

/// Every placement file of every engine, in the order of the table above.
std::vector<ExportTarget> export_targets();

/// @returns the placement file of that name
/// @throws Error(kInvalidArgument), listing the names
ExportTarget find_export_target(std::string_view name);

/// Reads a placement file. Every rank has the same number of slots: slot p is on rank
/// p / (num_slots / ep_size). Where a file has layers or experts that the shape does not have, or
/// lacks some, it is refused; so is a map that holds an expert twice on a rank, as EPLB's may.
/// @param place where the bytes are from, for messages
/// @returns one placement for each MoE layer, in order
/// @throws Error(kInvalidFile), naming the layer and the expert
/// @throws Error(kInvalidArgument) if the shape is out of range
std::vector<Placement> read_placements(const PlacementFile& file, std::string_view bytes,
                                       const MapShape& shape, std::string_view place);

}  // namespace c2r
