// Parses the lines of a router trace, and recognizes layers that were computed again.
#include <algorithm>
#include <map>
#include <set>
#include <span>

#include "c2r/core/error.h"
#include "c2r/core/fingerprint.h"
#include "c2r/core/shown.h"
#include "c2r/import/megatron/records_internal.h"
#include "c2r/io/file.h"

namespace c2r::megatron {
namespace {

std::optional<LogitsPlace> logits_of(const Json& json, const std::string& place,
                                     std::int64_t num_tokens, std::int64_t num_experts) {
  if (json_find(json, "logit_offset") == nullptr) return std::nullopt;
  const auto integer = [&](std::string_view key, std::int64_t max) {
    return json_integer(json_at(json, key, place), 0, max, key, place);
  };
  LogitsPlace logits{.rank = static_cast<std::int32_t>(integer("rank", INT32_MAX)),
                     .offset = integer("logit_offset", INT64_C(1) << 60),
                     .num_bytes = integer("logit_bytes", INT64_C(1) << 60)};
  const Json& shape = json_at(json, "logit_shape", place);
  C2R_REQUIRE(shape == Json::array({num_tokens, num_experts}), kInvalidFile,
              "{}: logit_shape is {}, but must be [{}, {}], tokens and experts", place,
              shown_value(shape), num_tokens, num_experts);
  const std::int64_t num_bytes = num_tokens * num_experts * 2;
  C2R_REQUIRE(logits.num_bytes == num_bytes, kInvalidFile,
              "{}: logit_bytes is {}, but {} x {} logits in bf16 have {}", place, logits.num_bytes,
              num_tokens, num_experts, num_bytes);
  return logits;
}

// The record of a line, or nothing if it is of a multi-token prediction layer.
std::optional<Record> record_of(const Json& json, const std::string& place, TraceBuilder& builder) {
  const std::string& block = json_string(json_at(json, "block", place), "block", place);
  if (block == "mtp") return std::nullopt;
  C2R_REQUIRE(block == "decoder", kInvalidFile, "{}: block is '{}', but must be 'decoder' or 'mtp'",
              place, shown(block));
  const std::string& stage = json_string(json_at(json, "stage", place), "stage", place);
  C2R_REQUIRE(stage == "pre_dispatch", kUnsupported,
              "{}: stage is '{}', but only 'pre_dispatch' is read", place, shown(stage));

  Record record{.step = json_integer(json_at(json, "step", place), 0, INT64_MAX, "step", place),
                .layer = static_cast<std::int32_t>(
                    json_integer(json_at(json, "layer", place), 0, INT32_MAX, "layer", place))};
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
  record.logits = logits_of(json, place, num_tokens, builder.request().num_experts);
  return record;
}

// The records of the step that is being read, by layer.
class StepRecords {
 public:
  // Whether the step has had a record of the same layer with the same choices. A hash of 64 bits
  // stands for the choices.
  bool has_again(const Record& record) {
    if (record.step != step_) hashes_.clear();
    step_ = record.step;
    Fingerprint hash(record.topk_idx.size());
    hash.add_bytes(std::as_bytes(std::span(record.topk_idx)));
    return !hashes_[record.layer].insert(hash.value()).second;
  }

 private:
  std::int64_t step_ = -1;
  std::map<std::int32_t, std::set<std::uint64_t>> hashes_;
};

// The value of a line; nothing if the line is the last one, does not end, and may be left out.
std::optional<Json> json_of_line(std::string_view line, const std::string& place, bool is_cut,
                                 bool drops_incomplete) {
  try {
    return parse_json(line, place);
  } catch (const Error& e) {
    if (!is_cut) throw;
    if (drops_incomplete) return std::nullopt;
    C2R_THROW(kInvalidFile, "{}; the file ends here: --drop-incomplete leaves its last step out",
              e.what());
  }
}

}  // namespace

PassedOver for_each_record(
    const std::filesystem::path& path, TraceBuilder& builder,
    const std::function<void(const Record& record, const std::string& place)>& body) {
  const std::string text = read_text_file(path);
  PassedOver passed;
  StepRecords step;
  std::int64_t line = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string place = fmt::format("{}:{}", path.string(), ++line);
    const std::string_view record_text = std::string_view(text).substr(begin, end - begin);
    begin = end + 1;
    if (record_text.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const auto json =
        json_of_line(record_text, place, end == text.size(), builder.request().drop_incomplete);
    if (!json) {
      passed.is_cut_off = true;
      continue;
    }
    const auto record = record_of(*json, place, builder);
    if (!record) {
      ++passed.num_mtp;
    } else if (!record->topk_idx.empty() && step.has_again(*record)) {
      ++passed.num_recomputed;
    } else {
      body(*record, place);
    }
  }
  return passed;
}

}  // namespace c2r::megatron
