// Imports: what other programs record, as our own files.
//
// The same engines' files hold routing decisions, counts or placements, so each format says what is
// made of it: a routing trace (c2r/trace/trace.h), collaboration statistics
// (c2r/collaboration/collaboration.h) or a plan (c2r/plan/plan.h).
//
// Expert ids of a trace are logical, counted from 0; slots, which SGLang's recorder names, become
// the experts in them. An input is a file or, for most formats, a folder of them; files of JSON
// hold one value, a list of values or a value on each line. Inputs whose names end in `.xz`, `.gz`
// or `.zst` are decompressed, but for files of torch.save(), which are mapped; what those say is
// never executed. One input file is in memory at a time; a trace that is being made is not.
//
// A trace is made of:
// clang-format off
// | format          | layer axis of the input                 | padding            | one sequence is  |
// | --------------- | --------------------------------------- | ------------------ | ---------------- |
// | npy             | as the caller says                      | -1 = no expert     | as sequences.csv |
// | megatron        | named in each record, as found          | none               | an input file    |
// | orders-in-chaos | model layers as keys, null = dense      | none               | an input file    |
// | moe-beyond      | model layers in a column                | none               | an input file    |
// | table           | model layers in a column                | fewer rows         | an input file    |
// | vllm            | MoE layers only, or all hidden layers   | -1 = prefix-cached | a choice         |
// | sglang          | all hidden layers, or as a schema says  | 0 = dense layer    | a response       |
// | sglang-recorder | all hidden layers                       | -1 = other rank's  | one of a prefill |
// | flame-moe       | model layers, each a folder             | none               | a file           |
// clang-format on
// Statistics are made of sglang-loads, vllm-loads, tensorrt-llm-loads and table-loads, which hold
// loads only and no pairs, and of coactivation, which holds pairs; the loads that it leaves out
// follow from them. A plan is made of NAME-placement, for each NAME of a placement file in
// c2r/plan/engines/engine.h.
//
// To add a format: a file beside this one that makes its row, a line in formats_internal.h, one in
// import.cc, and its form in tests/malformed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/collaboration/collaboration.h"
#include "c2r/core/progress.h"
#include "c2r/placement/cluster.h"
#include "c2r/plan/engines/engine.h"
#include "c2r/plan/plan.h"
#include "c2r/trace/trace.h"

namespace c2r {

/// The two phases of a request: its prompt, and the tokens that it generates one after the other.
enum class Phase { kPrefill, kDecode };

/// @param name "prefill" or "decode"
/// @throws Error(kInvalidArgument) for any other name, listing the two
Phase parse_phase(std::string_view name);

/// What to import, and what the inputs do not say about themselves. A format needs some of the
/// fields from `num_experts` on and does not use others (ImportFormat).
struct ImportRequest {
  std::string format;                         // the name of an ImportFormat; empty = recognized
  std::vector<std::filesystem::path> inputs;  // in the order of their tokens in the trace
  std::filesystem::path output;               // not used by import_statistics() and import_plan()
  std::string model;                          // free text for the header; may be empty
  std::int32_t num_experts = 0;               // routed experts of a layer; 0 = not given
  std::optional<std::int32_t> top_k;          // a check where the input says it
  // The model's own index of each MoE layer. Empty: as the input says, else 0, 1, 2, ...
  std::vector<std::int32_t> layer_indices;
  std::optional<std::int32_t> num_hidden_layers;  // all layers of the model, dense ones too
  std::filesystem::path weights;                  // of the choices; empty = none
  std::string axes;                               // of an array, as "LTK"; empty = TLK
  std::filesystem::path sequences;                // empty = one sequence
  std::filesystem::path placement;  // of the slots whose loads were counted; empty = of experts
  bool skip_cached = false;         // leave out tokens that were in the prefix cache
  bool drop_incomplete = false;     // leave out what a killed job has not recorded completely
  bool repair = false;              // of a placement: give wasted slots other experts
  std::optional<Phase> phase;       // only the tokens of this phase
  std::optional<Cluster> cluster;   // that a placement is for
  std::string c2r_version;          // noted in the provenance of a plan; may be empty
  std::string_view format_option = "format";  // what the caller calls `format`, for messages
  Progress* progress = nullptr;               // told of tokens (npy) or inputs done; may be null
  // Gets a sentence for each thing that was left out of the output or assumed; may be null.
  std::vector<std::string>* notes = nullptr;
};

/// What is made of a format.
enum class ImportKind { kTrace, kStatistics, kPlan };

/// The fields of a request that a format may need or use, by the name of `c2r import`'s option.
enum class ImportField {
  kNumExperts,       // --num-experts
  kTopK,             // --top-k
  kLayerIndices,     // --layers
  kNumHiddenLayers,  // --num-hidden-layers
  kWeights,          // --weights
  kSequences,        // --sequences
  kAxes,             // --axes
  kCluster,          // --cluster
  kPlacement,        // --placement
  kSkipCached,       // --skip-cached
  kPhase,            // --phase
  kDropIncomplete,   // --drop-incomplete
  kRepair,           // --repair
};

struct ImportResult {
  ImportKind makes = ImportKind::kTrace;
  TraceHeader header;
  std::int64_t num_tokens = 0;           // of a trace; of statistics, the most of a layer
  std::int64_t num_sequences = 0;        // of a trace
  std::int64_t num_skipped_tokens = 0;   // of unknown routing; the notes say why
  std::int64_t num_skipped_records = 0;  // megatron: of multi-token prediction layers
  bool has_pairs = false;                // of statistics
  // Of a plan: of the layer that has the fewest, and of the one that has the most.
  std::int32_t min_slots_per_rank = 0, max_slots_per_rank = 0;
};

/// A format that can be imported.
struct ImportFormat {
  std::string name;
  std::string summary;  // a line for --help
  ImportKind makes = ImportKind::kTrace;
  std::vector<ImportField> needs;  // a request without them is refused
  std::vector<ImportField> uses;   // besides, where given; any other one is refused
  bool takes_many_inputs = true;
  // An input that is a folder stands for the files in it whose names end so, compressed or not, in
  // the order of their names. Empty: a folder is no input, or an input by itself.
  std::vector<std::string_view> endings;

  // The reader, one of these three as `makes` says. Call import_file(), which checks the request.
  ImportResult (*write_trace)(const ImportRequest& request) = nullptr;
  CollaborationStatistics (*statistics)(const ImportRequest& request) = nullptr;
  const PlacementFile* placement_file = nullptr;
};

/// Every format, in the order of the lists above.
std::span<const ImportFormat> import_formats();

/// @returns the format of that name, or null
const ImportFormat* find_import_format(std::string_view name);

/// Sets `request.format`, if it is empty, to the format that recognize_input() finds in the first
/// input, and appends a sentence that says so to the notes. The imports below begin with this; call
/// it to know the format before.
/// @throws Error(kInvalidArgument) if the input has none of the formats, or there is no input
/// @throws Error as recognize_input()
void recognize_format(ImportRequest& request);

/// Imports the inputs into the file `output`, a trace, statistics or a plan.
/// @returns what was made
/// @throws Error(kInvalidArgument) for an unknown format, and for a field of the request that is
///         missing, out of range or not used by the format
/// @throws Error as recognize_format()
/// @throws Error(kInvalidFile), naming file, layer and token, for what is wrong with an input; then
///         no output appears, and an older one stays as it was
///
/// Cost: each input is read once, by megatron and sglang-recorder twice.
ImportResult import_file(ImportRequest request);

/// Imports statistics into memory. Loads and pairs must be counts that tokens of top_k distinct
/// experts each could have produced.
/// @throws Error as import_file(), and Error(kInvalidArgument) unless the format makes statistics
CollaborationStatistics import_statistics(ImportRequest request);

/// Imports a placement into memory, as a plan without lists and predictions.
/// @throws Error as import_file(), and Error(kInvalidArgument) unless the format makes a plan
Plan import_plan(ImportRequest request);

}  // namespace c2r
