// Megatron-Core's `--moe-routing-trace-path`: `router_trace_rank*.jsonl`, one JSON object a line,
// for one layer in one step on one rank.
//
// The inputs are concatenated, so that ranks which saw different tokens are added up; the ranks of
// pipeline stages may follow in any order if their layers are numbered through. Layers keep the
// number that they have in the file: the hooks count from 0 within a pipeline stage, the replay
// sink from 1 over the model. Records of block "mtp" are skipped and counted. Hidden states and
// logits in side files are ignored. Each input is read twice.
#include <algorithm>
#include <functional>
#include <map>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"
#include "c2r/import/formats_internal.h"
#include "c2r/import/trace_builder_internal.h"
#include "c2r/io/file.h"

namespace c2r {
namespace {

struct Record {
  std::int32_t layer = 0;
  std::vector<ExpertId> topk_idx;  // [num_tokens, top_k]
};

// The record on a line, or nothing if it is of a multi-token prediction layer.
std::optional<Record> parse_record(std::string_view line, const std::string& place,
                                   TraceBuilder& builder) {
  const Json json = parse_json(line, place);
  const std::string& block = json_string(json_at(json, "block", place), "block", place);
  if (block == "mtp") return std::nullopt;
  C2R_REQUIRE(block == "decoder", kInvalidFile, "{}: block is '{}', but must be 'decoder' or 'mtp'",
              place, shown(block));
  const std::string& stage = json_string(json_at(json, "stage", place), "stage", place);
  C2R_REQUIRE(stage == "pre_dispatch", kUnsupported,
              "{}: stage is '{}', but only 'pre_dispatch' is read", place, shown(stage));

  Record record;
  record.layer = static_cast<std::int32_t>(
      json_integer(json_at(json, "layer", place), 0, INT32_MAX, "layer", place));
  const auto& rows = json_array(json_at(json, "top_indices", place), "top_indices", place);
  const std::int64_t num_tokens =
      json_integer(json_at(json, "num_tokens", place), 0, INT64_MAX, "num_tokens", place);
  C2R_REQUIRE(num_tokens == std::ssize(rows), kInvalidFile,
              "{}: num_tokens is {}, but top_indices has {} rows", place, num_tokens, rows.size());
  builder.set_top_k(json_integer(json_at(json, "topk", place), 0, INT64_MAX, "topk", place), place);
  for (std::size_t t = 0; t < rows.size(); ++t) {
    builder.append_ids(rows[t], 0, {place, record.layer, static_cast<std::int64_t>(t)},
                       record.topk_idx);
  }
  return record;
}

// Calls `body(record, place)` for each record of the file; counts those that are skipped.
std::int64_t for_each_record(const std::filesystem::path& path, TraceBuilder& builder,
                             const std::function<void(const Record&, const std::string&)>& body) {
  const std::string text = read_text_file(path);
  std::int64_t num_skipped = 0, line = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string place = fmt::format("{}:{}", path.string(), ++line);
    const auto record =
        parse_record(std::string_view(text).substr(begin, end - begin), place, builder);
    if (record) {
      body(*record, place);
    } else {
      ++num_skipped;
    }
    begin = end + 1;
  }
  return num_skipped;
}

// The tokens of a rank are aligned only if it recorded each of its layers equally often.
void check_alignment(const std::map<std::int32_t, std::int64_t>& num_tokens,
                     const std::filesystem::path& path) {
  for (const auto& [layer, count] : num_tokens) {
    C2R_REQUIRE(count == num_tokens.begin()->second, kInvalidFile,
                "{}: layer {} has {} tokens, but layer {} has {}; was the recording cut off?",
                path.string(), layer, count, num_tokens.begin()->first, num_tokens.begin()->second);
  }
}

ImportResult write_megatron_trace(const ImportRequest& request) {
  TraceBuilder builder(request);
  std::map<std::int32_t, std::int64_t> position;  // layer -> its position among the layers
  std::int64_t num_skipped = 0;
  for (const auto& path : request.inputs) {
    std::map<std::int32_t, std::int64_t> num_tokens;
    num_skipped += for_each_record(path, builder, [&](const Record& record, const std::string&) {
      num_tokens[record.layer] += std::ssize(record.topk_idx) / builder.top_k();
      position[record.layer] = 0;
    });
    check_alignment(num_tokens, path);
  }
  std::vector<std::int32_t> layer_indices;
  for (auto& [layer, at] : position) {
    at = std::ssize(layer_indices);
    layer_indices.push_back(layer);
  }

  C2R_REQUIRE(!layer_indices.empty(), kInvalidFile, "{}: has no record of a decoder layer",
              request.inputs[0].string());
  builder.open(layer_indices, request.inputs[0].native());
  for_each_input(request, [&](const std::filesystem::path& path) {
    builder.writer().start_sequence();
    for_each_record(path, builder, [&](const Record& record, const std::string& place) {
      builder.writer().append(position.at(record.layer), record.topk_idx, {},
                              fmt::format("{}, layer {}", place, record.layer));
    });
  });
  ImportResult result = builder.finish();
  result.num_skipped_records = num_skipped;
  if (num_skipped > 0) {
    add_note(request,
             fmt::format("left out: {} records of multi-token prediction layers", num_skipped));
  }
  return result;
}

}  // namespace

ImportFormat import_rows::megatron() {
  return {.name = "megatron",
          .summary = "Megatron-Core router_trace_rank*.jsonl",
          .makes = ImportKind::kTrace,
          .needs = {ImportField::kNumExperts},
          .uses = {ImportField::kTopK, ImportField::kLayerIndices},
          .endings = {".jsonl"},
          .write_trace = write_megatron_trace};
}

}  // namespace c2r
