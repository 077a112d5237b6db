// The table of engines that c2r makes placements for: one row has all that c2r knows of an engine.
//
// A row has the placement files that the engine loads, with their writers and readers; how each of
// its all-to-all backends sends copies; how it chooses among replicas; and cautions for its user.
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
// transformers, torchtitan, deepspeed and axolotl load no placement; their rows have backends only.
//
// A new engine needs a file in this folder that makes its row, a line in engine_rows_internal.h,
// one in engine.cc, and broken files of its form in tests/malformed.
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

/// The extents that a placement file does not state and its reader needs.
struct MapShape {
  std::int32_t num_experts = 0;
  std::int32_t ep_size = 0;
  std::vector<std::int32_t> layer_indices;  // [num_layers], the model's own index of each MoE layer

  std::int64_t num_layers() const { return std::ssize(layer_indices); }
};

/// @returns the shape that a reader of a file of the plan needs
MapShape map_shape(const Plan& plan);

/// What a user of the engine decides about a file that is written for it.
struct ExportOptions {
  /// Hidden layers of the model, dense ones included, for files that have a row for each of them.
  /// Without it the last MoE layer is taken for the last layer.
  std::optional<std::int32_t> num_hidden_layers;
  /// The engine's all-to-all backend, by the engine's own name; empty = its default. The backend
  /// decides which warnings there are, but not the content of the file. An unknown one is a
  /// warning.
  std::string backend;
};

/// A form of placement file that an engine loads.
struct PlacementFile {
  std::string_view name;    // the target of `c2r export`; NAME-placement is the format of an import
  std::string_view suffix;  // of the file's name, with the dot

  /// The same as export_usage(), for a valid plan.
  std::string (*usage)(const Plan& plan, std::string_view path);

  /// Called through export_plan().
  /// @param plan a valid plan, whose layers have the same number of slots unless has_slots_by_layer
  /// @returns the bytes of the file
  /// @throws Error(kUnsupported) if the file cannot express the plan
  std::string (*write)(const Plan& plan, const ExportOptions& options);

  /// Called through read_placements(), which checks the shape.
  /// @param notes gets a sentence for each thing that is left out
  /// @returns one placement for each MoE layer, in order, as it is in the file: a rank may hold an
  ///          expert several times
  std::vector<Placement> (*read)(std::string_view bytes, const MapShape& shape,
                                 std::string_view place, std::vector<std::string>& notes);

  std::span<const std::string_view> cautions = {};  // for the user, with every backend
  bool has_hidden_layer_rows = false;  // the file has a row for each hidden layer, dense or not
  bool keeps_slot_order = true;        // false: the file says only which rank holds an expert
  bool has_slots_by_layer = false;     // layers may have different numbers of slots
  // How a user goes back to before, as the end of a sentence.
  std::string_view rollback = "start the engine as before, without this file";
};

/// A kernel with which a backend sends copies, as its source was read.
struct ExchangeKernel {
  std::string_view title;  // for people: "DeepEP normal"
  /// How dispatch sends copies; nothing if no copy mode describes it.
  std::optional<CopyMode> mode = {};
  /// How combine returns them, if otherwise than dispatch sends them.
  std::optional<CopyMode> combine_mode = {};
  std::string_view source;        // the repository and the file that was read
  std::string_view setting = {};  // of the engine, which chooses the kernel; empty = none is needed
  /// Made for the few tokens of decoding: it sends each copy as a message of its own.
  bool is_for_decoding = false;
  /// What a placement cannot save, where the copies alone would promise too much; empty = nothing.
  std::string_view verdict = {};
};

/// An all-to-all backend of an engine.
struct Backend {
  std::string_view name;  // the engine's own name for it
  // At least one: the first is for prefill or training, or the only one.
  std::span<const ExchangeKernel> kernels;
};

struct EngineRow {
  std::string_view name;
  std::string_view title;  // as its authors write it
  // Empty if the engine loads no placement: then the rows of a checkpoint's experts are permuted.
  std::span<const PlacementFile> files = {};
  // The backends whose way of sending copies is known; the first is the engine's default.
  std::span<const Backend> backends = {};
  // The rule that is closest to the engine's choice among replicas; nothing if that is not known.
  std::optional<ReplicaRule> replica_rule = {};
};

/// @returns all engines, in the order of the table above
std::span<const EngineRow> engines();

/// @returns the engine of that name
/// @throws Error(kInvalidArgument), listing the names
const EngineRow& find_engine(std::string_view name);

/// @returns the engine's backend of that name, its default for an empty name, and null if c2r does
///          not know how the backend sends copies
const Backend* find_backend(const EngineRow& engine, std::string_view name);

/// An engine with one of its backends.
struct EngineBackend {
  const EngineRow* engine = nullptr;
  const Backend* backend = nullptr;
  bool decodes = false;  // take the backend's kernel for decoding
};

/// @returns the kernel that times and tables are about: the backend's first one for decoding if
///          `use` decodes and there is one, else its first
const ExchangeKernel& kernel_of(const EngineBackend& use);

/// @param backend empty = the engine's default
/// @returns the engine and its backend
/// @throws Error(kInvalidArgument), listing the names, if c2r does not know the engine or how the
///         backend sends copies
EngineBackend find_engine_backend(std::string_view engine, std::string_view backend);

/// A placement file with the engine that loads it.
struct ExportTarget {
  const EngineRow& engine;
  const PlacementFile& file;
};

/// @returns all placement files of all engines, in the order of the table above
std::vector<ExportTarget> export_targets();

/// @returns the placement file of that name
/// @throws Error(kInvalidArgument), listing the names
ExportTarget find_export_target(std::string_view name);

/// Reads a placement file. Every rank has the same number of slots: slot p is on rank
/// p / (num_slots / ep_size). A slot is wasted if an earlier slot of its rank holds its expert, as
/// in most maps that EPLB makes for DeepSeek-V3. A file is refused if its layers or experts are not
/// those of the shape.
/// @param place where the bytes are from, for messages
/// @param notes gets a sentence for each thing in the file that is left out, such as a shared
///              expert; may be null
/// @returns one layer for each MoE layer of the shape, in order, without lists
/// @throws Error(kInvalidFile), naming the layer and the expert
/// @throws Error(kInvalidArgument) if the shape is out of range
std::vector<PlanLayer> read_placements(const PlacementFile& file, std::string_view bytes,
                                       const MapShape& shape, std::string_view place,
                                       std::vector<std::string>* notes = nullptr);

}  // namespace c2r
