// Importers: routing decisions as other programs record them, turned into a routing trace.
//
// clang-format off
// | format          | layer axis of the input                 | padding            | one sequence is  |
// | --------------- | --------------------------------------- | ------------------ | ---------------- |
// | npy             | as the caller says                      | -1 = no expert     | as sequences.csv |
// | megatron        | named in each record, as found          | none               | an input file    |
// | orders-in-chaos | model layers as keys, null = dense      | none               | an input file    |
// | moe-beyond      | model layers in a column                | none               | an input file    |
// | vllm            | MoE layers only, counted from 0         | -1 = prefix-cached | a choice         |
// | sglang          | all hidden layers, or as a schema says  | 0 = dense layer    | a response       |
// clang-format on
//
// Every format must hold logical expert ids, counted from 0; one that may hold physical slot ids
// (SGLang's per_token dumps) is not read. No format states the number of experts. Inputs whose
// names end in `.xz` are decompressed. One input file is in memory at a time, the trace is not.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/core/progress.h"
#include "c2r/trace/trace.h"

namespace c2r {

/// What to import, and what the inputs do not say about themselves.
struct ImportRequest {
  std::vector<std::filesystem::path> inputs;  // in the order of their tokens in the trace
  std::filesystem::path output;
  std::string model;             // free text for the trace's header
  std::int32_t num_experts = 0;  // required: routed experts of a layer, in [1, kMaxExperts]
  // Required by sglang without a schema; elsewhere a check of what the input says.
  std::optional<std::int32_t> top_k;
  // The model's own index of each MoE layer. Empty: as the input says, else 0, 1, 2, ...
  std::vector<std::int32_t> layer_indices;
  // sglang without a schema: all layers of the model, dense ones too.
  std::optional<std::int32_t> num_hidden_layers;
  std::filesystem::path weights;    // npy only; empty = none
  std::filesystem::path sequences;  // npy only; empty = one sequence
  Progress* progress = nullptr;     // told of tokens (npy) or inputs done; may be null
};

struct ImportResult {
  TraceHeader header;
  std::int64_t num_tokens = 0, num_sequences = 0;
  std::int64_t num_skipped_tokens = 0;   // vllm: prefix-cached, of unknown routing
  std::int64_t num_skipped_records = 0;  // megatron: of multi-token prediction layers
};

// All importers @throw Error(kInvalidFile), naming file, layer and token, for what is wrong with an
// input, and Error(kInvalidArgument) for a field of the request that is missing or not used by the
// format. Then no output appears, and an older one stays as it was.

/// One array of integers [num_tokens, num_layers, top_k]; -1 in a signed one marks no expert.
/// `weights` is an array of f2 or f4 of the same shape: a trace has weights of all its tokens or
/// of none, so one that covers only the first rows is an error. `sequences` is a CSV file with the
/// columns row_start and n_tokens, whose rows tile the tokens in order.
ImportResult import_npy(const ImportRequest& request);

/// Megatron-Core's `--moe-routing-trace-path`: `router_trace_rank*.jsonl`, one record for each
/// (step, layer). The inputs are concatenated, so that ranks which saw different tokens are added
/// up; the ranks of pipeline stages may follow in any order if their layers are numbered through.
/// Layers keep the number that they have in the file: the hooks count from 0 within a pipeline
/// stage, the replay sink from 1 over the model. Records of block "mtp" are skipped and counted.
/// Hidden states and logits in side files are ignored.
///
/// Cost: reads each input twice.
ImportResult import_megatron(const ImportRequest& request);

/// The JSON of "Orders in Chaos" (core12345/MoE_expert_selection_trace): a list of forward steps,
/// the first of them the prefill, each an object from the layer to its tokens' experts, or to null
/// for a dense layer.
ImportResult import_orders_in_chaos(const ImportRequest& request);

/// The CSV of moe-beyond (ngavhane/moe-beyond): Layer ID, Batch Number, Token, Activated Expert
/// IDs; all tokens of one layer, then of the next. The token texts of the layers are compared.
ImportResult import_moe_beyond(const ImportRequest& request);

/// vLLM's routed experts: a response of its OpenAI server with `prompt_routed_experts` and
/// `choices[].routed_experts`, an object with `routed_experts`, or such a list
/// [num_tokens, num_moe_layers, top_k] alone. The prompt belongs to the first choice; every
/// further choice is a sequence of its own. A position that was prefix-cached is -1 in all layers;
/// it is left out and counted.
ImportResult import_vllm(const ImportRequest& request);

/// SGLang's `meta_info.routed_experts`: base64 of int32 [num_rows, num_hidden_layers, top_k], in a
/// response or a list of responses. Layers in which every id is 0 are taken to be dense and left
/// out, unless `layer_indices` names the MoE layers. The newer `meta_info.input_expert_ids` and
/// `.output_expert_ids` are read as their `expert_ids_schema` says.
ImportResult import_sglang(const ImportRequest& request);

/// A format by its name.
struct ImportFormat {
  std::string_view name;     // as in the table above
  std::string_view summary;  // one line for --help
  ImportResult (*run)(const ImportRequest& request);
};

/// Every format, in the order of the table above.
std::span<const ImportFormat> import_formats();

}  // namespace c2r
