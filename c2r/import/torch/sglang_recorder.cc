// Traces from SGLang's expert distribution recorder in the mode per_token: the files of all ranks.
//
// 1. Every file is read once to find which layers have experts, how many columns of the fixed width
//    are used (top_k), and files of ranks that recorded the same tokens.
// 2. Every file is read again; slots become the experts that are in them, and tokens that are -1 in
//    all layers are left out.
// A pass that extends sequences has one sequence for each of its `extend_seq_lens`; any other pass
// is a sequence of its own, for the requests of a batch that decodes are not told apart.
#include <algorithm>

#include "c2r/core/error.h"
#include "c2r/import/formats_internal.h"
#include "c2r/import/torch/recorder_internal.h"
#include "c2r/import/trace_builder_internal.h"
#include "c2r/routing/routing.h"

namespace c2r {
namespace {

using torch::RecorderFile;
using torch::TensorData;
using torch::Value;

// What the files hold, found before anything is written.
struct RecordedShape {
  std::int64_t num_layers = 0, num_experts = 0;
  std::int32_t top_k = 0;         // columns with a slot in any row
  std::vector<bool> has_experts;  // [num_layers]
  std::vector<bool> is_left_out;  // [inputs]: its tokens are those of another file
  std::int64_t num_other_records = 0;

  std::vector<std::int32_t> moe_layers() const {
    std::vector<std::int32_t> layers;
    for (std::size_t layer = 0; layer < has_experts.size(); ++layer) {
      if (has_experts[layer]) layers.push_back(static_cast<std::int32_t>(layer));
    }
    return layers;
  }
};

// The slots of one pass, [num_layers, num_tokens, width].
class PassSlots {
 public:
  PassSlots(RecorderFile& file, std::int64_t record)
      : data_(file.tensor(record, "topk_ids_of_layer", 3)),
        place_(file.place(record)),
        num_slots_(file.num_slots()) {
    C2R_REQUIRE(width() >= 1, kInvalidFile, "{}: topk_ids_of_layer has no column", place_);
    const Value* const input_ids = file.file().find(file.record(record), "input_ids", place_);
    if (input_ids == nullptr) return;
    const auto num_ids = std::ssize(file.file().items(*input_ids, place_ + ", input_ids"));
    C2R_REQUIRE(num_ids == num_tokens(), kInvalidFile,
                "{}: has {} input_ids, but topk_ids_of_layer has {} tokens", place_, num_ids,
                num_tokens());
  }

  std::int64_t num_tokens() const { return data_.array().shape[1]; }
  std::int64_t width() const { return data_.array().shape[2]; }
  std::span<const std::byte> bytes() const { return data_.array().bytes; }
  const std::string& place() const { return place_; }

  // -1, or a slot.
  std::int64_t at(std::int64_t layer, std::int64_t token, std::int64_t k) const {
    const std::int64_t slot =
        integer_at(data_.array(), (layer * num_tokens() + token) * width() + k);
    C2R_REQUIRE(-1 <= slot && slot < num_slots_, kInvalidFile,
                "{}: slot {} is not in [0, {}], nor -1 for none; a shared expert that SGLang fuses "
                "with the others is not read: record with --disable-shared-experts-fusion",
                TokenPlace{place_, layer, token}.text(), slot, num_slots_ - 1);
    return slot;
  }

 private:
  TensorData data_;
  std::string place_;
  std::int64_t num_slots_;
};

void scan_pass(const PassSlots& pass, RecordedShape& shape) {
  for (std::int64_t layer = 0; layer < shape.num_layers; ++layer) {
    for (std::int64_t token = 0; token < pass.num_tokens(); ++token) {
      for (std::int64_t k = 0; k < pass.width(); ++k) {
        if (pass.at(layer, token, k) == -1) continue;
        C2R_REQUIRE(k < kMaxTopK, kInvalidFile, "{}: has more than {} experts",
                    TokenPlace{pass.place(), layer, token}.text(), kMaxTopK);
        shape.has_experts[static_cast<std::size_t>(layer)] = true;
        shape.top_k = std::max(shape.top_k, static_cast<std::int32_t>(k + 1));
      }
    }
  }
}

void scan_file(RecorderFile& file, torch::SameTokens& same_tokens, RecordedShape& shape) {
  const std::string& path = file.file().path();
  C2R_REQUIRE(file.has_tokens(), kInvalidFile,
              "{}: has counts of passes and no tokens, as the mode per_pass writes it; import it "
              "with --from sglang-loads, or record with the mode per_token",
              path);
  if (shape.num_layers == 0) {
    shape.num_layers = file.num_layers();
    shape.num_experts = file.num_experts();
    shape.has_experts.resize(static_cast<std::size_t>(shape.num_layers));
  }
  C2R_REQUIRE(file.num_layers() == shape.num_layers && file.num_experts() == shape.num_experts,
              kInvalidFile,
              "{}: has {} layers of {} experts, but the files before it have {} of {}", path,
              file.num_layers(), file.num_experts(), shape.num_layers, shape.num_experts);
  Fingerprint content;
  for (std::int64_t record = 0; record < file.num_records(); ++record) {
    const PassSlots pass(file, record);
    scan_pass(pass, shape);
    content.add(pass.num_tokens());
    content.add_bytes(pass.bytes());
  }
  shape.is_left_out.push_back(same_tokens.seen(content.value(), file.rank()));
  shape.num_other_records += file.num_other_records();
}

RecordedShape scan_files(const ImportRequest& request) {
  RecordedShape shape;
  torch::SameTokens same_tokens(request);
  for (const auto& path : request.inputs) {
    RecorderFile file(path);
    scan_file(file, same_tokens, shape);
  }
  const std::string path = request.inputs[0].string();
  C2R_REQUIRE(shape.top_k > 0, kInvalidFile, "{}: no token has an expert", path);
  C2R_REQUIRE(request.num_experts == 0 || request.num_experts == shape.num_experts, kInvalidFile,
              "{}: last_physical_to_logical_map has experts 0 to {}, but --num-experts is {}", path,
              shape.num_experts - 1, request.num_experts);
  return shape;
}

// Tokens [begin, end) of each sequence in a pass.
std::vector<std::pair<std::int64_t, std::int64_t>> sequences_of(const RecorderFile& file,
                                                                std::int64_t record,
                                                                const PassSlots& pass) {
  std::vector<std::pair<std::int64_t, std::int64_t>> sequences;
  std::int64_t begin = 0;
  const torch::TorchFile& torch_file = file.file();
  const Value* const lengths =
      torch_file.find(file.record(record), "extend_seq_lens", pass.place());
  if (lengths != nullptr) {
    const std::string what = pass.place() + ", extend_seq_lens";
    for (const Value& value : torch_file.items(*lengths, what)) {
      const std::int64_t length = torch_file.integer(value, what);
      C2R_REQUIRE(1 <= length && length <= pass.num_tokens() - begin, kInvalidFile,
                  "{}: extend_seq_lens has a sequence of {} tokens where {} of the pass are left",
                  pass.place(), length, pass.num_tokens() - begin);
      sequences.emplace_back(begin, begin + length);
      begin += length;
    }
  }
  if (begin < pass.num_tokens()) sequences.emplace_back(begin, pass.num_tokens());
  return sequences;
}

// Writes the trace from the files that were scanned.
class RecorderImporter {
 public:
  RecorderImporter(const ImportRequest& request, const RecordedShape& shape)
      : layers_(shape.moe_layers()), builder_(request) {
    const std::string path = request.inputs[0].string();
    builder_.set_top_k(shape.top_k, path);
    builder_.open(layers_, path);
  }

  void add_file(RecorderFile& file) {
    for (std::int64_t record = 0; record < file.num_records(); ++record) {
      const PassSlots pass(file, record);
      if (!is_wanted(file, record, pass)) continue;
      for (const auto& [begin, end] : sequences_of(file, record, pass)) {
        add_sequence(file, pass, begin, end);
      }
    }
  }

  ImportResult finish() {
    ImportResult result = builder_.finish();
    result.num_skipped_tokens = num_padding_ + num_of_other_phase_;
    if (num_padding_ > 0) {
      add_note(builder_.request(),
               fmt::format("left out: {} tokens that are -1 in every layer: padding, or routed by "
                           "another rank",
                           num_padding_));
    }
    if (num_of_other_phase_ > 0) {
      add_note(builder_.request(),
               fmt::format("left out: {} tokens of passes that do not only {}", num_of_other_phase_,
                           *builder_.request().phase == Phase::kPrefill ? "prefill" : "decode"));
    }
    return result;
  }

 private:
  // SGLang's ForwardMode: 1 extends sequences, 2 decodes, 3 does both, and there are others.
  bool is_wanted(const RecorderFile& file, std::int64_t record, const PassSlots& pass) {
    const auto& phase = builder_.request().phase;
    if (!phase || pass.num_tokens() == 0) return true;
    const Value& value = file.file().at(file.record(record), "forward_mode", pass.place());
    const std::int64_t mode = file.file().integer(value, pass.place() + ", forward_mode");
    if (mode == (*phase == Phase::kPrefill ? 1 : 2)) return true;
    num_of_other_phase_ += pass.num_tokens();
    return false;
  }

  bool is_padding(const PassSlots& pass, std::int64_t token) const {
    for (const std::int64_t layer : layers_) {
      for (std::int64_t k = 0; k < std::min<std::int64_t>(builder_.top_k(), pass.width()); ++k) {
        if (pass.at(layer, token, k) != -1) return false;
      }
    }
    return true;
  }

  void add_sequence(const RecorderFile& file, const PassSlots& pass, std::int64_t begin,
                    std::int64_t end) {
    std::vector<std::int64_t> tokens;
    for (std::int64_t token = begin; token < end; ++token) {
      if (!is_padding(pass, token)) tokens.push_back(token);
    }
    num_padding_ += end - begin - std::ssize(tokens);
    SequenceChoices sequence{.layer_indices = layers_};
    for (const std::int64_t layer : layers_) {
      auto& topk_idx = sequence.topk_idx.emplace_back();
      for (const std::int64_t token : tokens) {
        for (std::int64_t k = 0; k < builder_.top_k(); ++k) {
          const std::int64_t slot = k < pass.width() ? pass.at(layer, token, k) : -1;
          topk_idx.push_back(slot == -1 ? kNoExpert : ExpertId{file.expert(layer, slot)});
        }
      }
    }
    builder_.add_sequence(sequence, pass.place());
  }

  std::vector<std::int32_t> layers_;
  TraceBuilder builder_;
  std::int64_t num_padding_ = 0, num_of_other_phase_ = 0;
};

ImportResult write_sglang_recorder_trace(const ImportRequest& request) {
  const RecordedShape shape = scan_files(request);
  ImportRequest told = request;  // the file says what others have to be told
  told.num_experts = static_cast<std::int32_t>(shape.num_experts);
  RecorderImporter importer(told, shape);
  std::size_t input = 0;
  for_each_input(request, [&](const std::filesystem::path& path) {
    if (shape.is_left_out[input++]) return;
    RecorderFile file(path);
    importer.add_file(file);
  });
  ImportResult result = importer.finish();
  if (shape.num_other_records > 0) {
    add_note(request,
             fmt::format("left out: {} records of a draft model", shape.num_other_records));
  }
  return result;
}

}  // namespace

ImportFormat import_rows::sglang_recorder() {
  return {.name = "sglang-recorder",
          .summary = "SGLang's recorder, mode per_token: the .pt files of all ranks",
          .makes = ImportKind::kTrace,
          .needs = {},
          .uses = {ImportField::kNumExperts, ImportField::kTopK, ImportField::kLayerIndices,
                   ImportField::kPhase},
          .endings = {".pt"},
          .write_trace = write_sglang_recorder_trace};
}

}  // namespace c2r
