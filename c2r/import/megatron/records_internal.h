// Reads the records of one file that Megatron-Core's router trace wrote.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "c2r/core/ids.h"
#include "c2r/import/trace_builder_internal.h"

namespace c2r::megatron {

/// Where the logits of a record are in the file logits_rank{rank}.bin: bf16 [num_tokens,
/// num_experts].
struct LogitsPlace {
  std::int32_t rank = 0;
  std::int64_t offset = 0, num_bytes = 0;
};

/// The choices of some tokens in one layer.
struct Record {
  std::int64_t step = 0;
  std::int32_t layer = 0;
  std::vector<ExpertId> topk_idx;     // [num_tokens, top_k]
  std::optional<LogitsPlace> logits;  // if the record says that they were written
};

/// What a pass over a file has met, besides the records that it passed on.
struct PassedOver {
  std::int64_t num_mtp = 0;         // records of multi-token prediction
  std::int64_t num_recomputed = 0;  // records that repeat one of the same step and layer
  bool is_cut_off = false;          // the last line is no record
};

/// Calls `body` for each record of a decoder layer, in the order of the file. A record with the
/// choices of an earlier one of the same step and layer is left out: the layer was computed again
/// for the backward pass.
/// @param builder is told the top_k
/// @param place "FILE:LINE"
/// @throws Error(kInvalidFile) if a line is no record; the last one may be cut off, if it does not
///         end and the request drops what is incomplete
///
/// Cost: the file in memory; 8 bytes for each record of a step.
PassedOver for_each_record(
    const std::filesystem::path& path, TraceBuilder& builder,
    const std::function<void(const Record& record, const std::string& place)>& body);

}  // namespace c2r::megatron
