// Megatron-Core's `--moe-routing-trace-path`: `router_trace_rank*.jsonl`, one JSON object a line,
// for one layer in one step on one rank, and `logits_rank*.bin`.
//
// The inputs are concatenated, so that ranks which saw different tokens are added up; the ranks of
// pipeline stages may follow in any order if their layers are numbered through. Layers keep the
// number that they have in the file: the hooks count from 0 within a pipeline stage, the replay
// sink from 1 over the model. Hidden states in side files are ignored. Each input is read twice:
// the first time for its layers, its logits and the end of what is complete.
#include <algorithm>
#include <functional>
#include <map>
#include <span>

#include "c2r/core/element.h"
#include "c2r/core/error.h"
#include "c2r/core/half.h"
#include "c2r/import/formats_internal.h"
#include "c2r/import/megatron/records_internal.h"
#include "c2r/import/trace_builder_internal.h"
#include "c2r/io/file.h"
#include "c2r/routing/logit_choices.h"

namespace c2r {
namespace {

using megatron::for_each_record;
using megatron::PassedOver;
using megatron::Record;

// The side file of the logits, opened for the first record that has some.
class LogitsFile {
 public:
  explicit LogitsFile(const std::filesystem::path& trace) : folder_(trace.parent_path()) {}

  std::string path_of(const Record& record) const {
    return (folder_ / fmt::format("logits_rank{}.bin", record.logits->rank)).string();
  }
  bool is_there_for(const Record& record) const { return path_exists(path_of(record)); }

  /// @returns whether the file is long enough for the record
  bool has(const Record& record) {
    const auto& [rank, offset, num_bytes] = *record.logits;
    return offset + num_bytes <= std::ssize(bytes_for(record));
  }

  /// @returns [num_tokens, num_experts], rounded to f16
  Matrix<float> read(const Record& record, std::int32_t num_experts) {
    const auto& [rank, offset, num_bytes] = *record.logits;
    C2R_REQUIRE(has(record), kInvalidFile, "{}: has become shorter", path_of(record));
    Matrix<float> logits(num_bytes / 2 / num_experts, num_experts);
    to_f32(bytes_for(record).subspan(static_cast<std::size_t>(offset)).data(), ElementType::kBf16,
           logits.all());
    return logits;
  }

 private:
  std::span<const std::byte> bytes_for(const Record& record) {
    if (file_ == nullptr || rank_ != record.logits->rank) {
      file_ = std::make_unique<MappedFile>(path_of(record));
      rank_ = record.logits->rank;
    }
    return file_->bytes();
  }

  std::filesystem::path folder_;
  std::int32_t rank_ = 0;
  std::unique_ptr<MappedFile> file_;
};

using TokensOfLayer = std::map<std::int32_t, std::int64_t>;  // layer -> its tokens

bool is_aligned(const TokensOfLayer& num_tokens) {
  return std::ranges::all_of(
      num_tokens, [&](const auto& layer) { return layer.second == num_tokens.begin()->second; });
}

// The tokens of a rank are aligned only if it recorded each of its layers equally often.
void check_alignment(const TokensOfLayer& num_tokens, const std::filesystem::path& path) {
  for (const auto& [layer, count] : num_tokens) {
    C2R_REQUIRE(count == num_tokens.begin()->second, kInvalidFile,
                "{}: layer {} has {} tokens, but layer {} has {}; if the recording was cut off, "
                "--drop-incomplete leaves its last step out",
                path.string(), layer, count, num_tokens.begin()->first, num_tokens.begin()->second);
  }
}

// What a file holds.
struct FileScan {
  TokensOfLayer num_tokens;
  std::int64_t num_records = 0;         // that are read: all, or those before the last step
  std::int64_t num_dropped = 0;         // of a last step that is incomplete
  std::int64_t num_without_logits = 0;  // of the records that are read
  std::string missing_logits;           // the file that should have them, if it is not there
  PassedOver passed;
};

// Scans one file record by record.
class Scanner {
 public:
  Scanner(const std::filesystem::path& path, const TraceBuilder& builder)
      : path_(path), builder_(builder), logits_(path) {}

  void add(const Record& record, const std::string& place) {
    if (record.step != step_) {
      C2R_REQUIRE(!is_cut_, kInvalidFile,
                  "{}: step {} lacks logits, which {} does not have, but is not the last step",
                  path_.string(), step_, cut_file_);
      before_step_ = now_;
      step_ = record.step;
    }
    now_.num_tokens[record.layer] += std::ssize(record.topk_idx) / builder_.top_k();
    ++now_.num_records;
    look_for_logits(record, place);
  }

  FileScan finish(const PassedOver& passed) {
    const bool drops =
        builder_.request().drop_incomplete && (is_cut_ || !is_aligned(now_.num_tokens));
    FileScan scan = drops ? before_step_ : now_;
    scan.num_dropped = now_.num_records - scan.num_records;
    scan.passed = passed;
    check_alignment(scan.num_tokens, path_);
    return scan;
  }

 private:
  void look_for_logits(const Record& record, const std::string& place) {
    if (!record.logits || !now_.missing_logits.empty()) {
      ++now_.num_without_logits;
      return;
    }
    if (!logits_.is_there_for(record)) {
      now_.missing_logits = logits_.path_of(record);
      return;
    }
    if (logits_.has(record)) return;
    C2R_REQUIRE(builder_.request().drop_incomplete, kInvalidFile,
                "{}: its logits end at byte {} of {}, which is shorter; if the recording was cut "
                "off, --drop-incomplete leaves its last step out",
                place, record.logits->offset + record.logits->num_bytes, logits_.path_of(record));
    is_cut_ = true;
    cut_file_ = logits_.path_of(record);
  }

  const std::filesystem::path& path_;
  const TraceBuilder& builder_;
  LogitsFile logits_;
  std::int64_t step_ = -1;
  FileScan before_step_, now_;
  bool is_cut_ = false;  // the logits of the last step
  std::string cut_file_;
};

// Says why a trace has no logits although some records have them; nothing otherwise.
std::optional<std::string> why_no_logits(std::span<const FileScan> scans,
                                         std::span<const std::filesystem::path> inputs) {
  std::int64_t num_with = 0;
  for (const FileScan& scan : scans) num_with += scan.num_records - scan.num_without_logits;
  if (num_with == 0) return std::nullopt;
  for (std::size_t i = 0; i < scans.size(); ++i) {
    if (!scans[i].missing_logits.empty()) {
      return fmt::format("left out: logits, for there is no {}", scans[i].missing_logits);
    }
    if (scans[i].num_without_logits == 0) continue;
    return fmt::format("left out: logits, which {} of {} records of {} do not have",
                       scans[i].num_without_logits, scans[i].num_records, inputs[i].string());
  }
  return std::nullopt;
}

void add_scan_notes(const ImportRequest& request, std::span<const FileScan> scans) {
  PassedOver all;
  for (std::size_t i = 0; i < scans.size(); ++i) {
    all.num_mtp += scans[i].passed.num_mtp;
    all.num_recomputed += scans[i].passed.num_recomputed;
    if (scans[i].num_dropped > 0 || scans[i].passed.is_cut_off) {
      add_note(request, fmt::format("left out: {} records of an incomplete step at the end of {}{}",
                                    scans[i].num_dropped, request.inputs[i].string(),
                                    scans[i].passed.is_cut_off ? ", and its last line" : ""));
    }
  }
  if (all.num_mtp > 0) {
    add_note(request,
             fmt::format("left out: {} records of multi-token prediction layers", all.num_mtp));
  }
  if (all.num_recomputed > 0) {
    add_note(request,
             fmt::format("left out: {} records that repeat one of the same step and layer, "
                         "which was computed again for the backward pass",
                         all.num_recomputed));
  }
  if (const auto why = why_no_logits(scans, request.inputs)) add_note(request, *why);
}

// Appends the records of scanned files to the trace.
class RecordWriter {
 public:
  RecordWriter(TraceBuilder& builder, std::map<std::int32_t, std::int64_t> position,
               bool has_logits)
      : builder_(builder), position_(std::move(position)), has_logits_(has_logits) {}

  void write(const std::filesystem::path& path, std::int64_t num_records) {
    LogitsFile logits(path);
    std::int64_t at = 0;
    builder_.writer().start_sequence();
    for_each_record(path, builder_, [&](const Record& record, const std::string& place) {
      if (at++ >= num_records) return;
      const std::string where = fmt::format("{}, layer {}", place, record.layer);
      const std::int64_t layer = position_.at(record.layer);
      builder_.writer().append(layer, record.topk_idx, {}, where);
      if (has_logits_) append_logits(layer, record, logits, where);
    });
  }

  void add_note_on_choices() const {
    if (num_other_choices_ == 0) return;
    add_note(builder_.request(),
             fmt::format("{} of {} choices (of a token in a layer) are not the top-{} of their "
                         "logits: the router looked at more than the logits",
                         num_other_choices_, num_choices_, builder_.top_k()));
  }

 private:
  void append_logits(std::int64_t layer, const Record& record, LogitsFile& file,
                     const std::string& place) {
    Matrix<float> logits = file.read(record, builder_.request().num_experts);
    builder_.writer().append_logits(layer, logits.all(), place);
    for (float& logit : logits.all()) logit = to_float(to_half(logit));  // as the trace has them
    const MatrixView<const ExpertId> choices(record.topk_idx.data(), logits.rows(),
                                             builder_.top_k());
    num_choices_ += logits.rows();
    num_other_choices_ += count_other_choices(choices, logits);
  }

  TraceBuilder& builder_;
  const std::map<std::int32_t, std::int64_t> position_;  // layer -> its position among the layers
  const bool has_logits_;
  std::int64_t num_choices_ = 0, num_other_choices_ = 0;
};

ImportResult write_megatron_trace(const ImportRequest& request) {
  TraceBuilder builder(request);
  std::map<std::int32_t, std::int64_t> position;
  std::vector<FileScan> scans;
  for (const auto& path : request.inputs) {
    Scanner scanner(path, builder);
    const auto passed = for_each_record(
        path, builder,
        [&](const Record& record, const std::string& place) { scanner.add(record, place); });
    scans.push_back(scanner.finish(passed));
    for (const auto& [layer, count] : scans.back().num_tokens) position[layer] = 0;
  }
  std::vector<std::int32_t> layer_indices;
  for (auto& [layer, at] : position) {
    at = std::ssize(layer_indices);
    layer_indices.push_back(layer);
  }

  C2R_REQUIRE(!layer_indices.empty(), kInvalidFile, "{}: has no record of a decoder layer",
              request.inputs[0].string());
  builder.open(layer_indices, request.inputs[0].native());
  const bool has_logits = std::ranges::all_of(scans, [](const FileScan& scan) {
    return scan.num_without_logits == 0 && scan.missing_logits.empty();
  });
  RecordWriter writer(builder, std::move(position), has_logits);
  std::size_t at = 0;
  for_each_input(request, [&](const std::filesystem::path& path) {
    writer.write(path, scans[at++].num_records);
  });
  ImportResult result = builder.finish();
  for (const FileScan& scan : scans) result.num_skipped_records += scan.passed.num_mtp;
  add_scan_notes(request, scans);
  writer.add_note_on_choices();
  return result;
}

}  // namespace

ImportFormat import_rows::megatron() {
  return {.name = "megatron",
          .summary = "Megatron-Core router_trace_rank*.jsonl, with logits_rank*.bin beside it",
          .makes = ImportKind::kTrace,
          .needs = {ImportField::kNumExperts},
          .uses = {ImportField::kTopK, ImportField::kLayerIndices, ImportField::kDropIncomplete},
          .endings = {".jsonl"},
          .write_trace = write_megatron_trace};
}

}  // namespace c2r
