// One array of integers [num_tokens, num_layers, top_k], as collections of traces publish them; -1
// in a signed one marks no expert. `weights` is an array of f2 or f4 of the same shape: a trace has
// weights of all its tokens or of none, so one that covers only the first rows is an error.
// `sequences` is a CSV file with the columns row_start and n_tokens, whose rows tile the tokens in
// order.
#include "c2r/io/npy.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "c2r/core/error.h"
#include "c2r/import/formats_internal.h"
#include "c2r/import/trace_builder_internal.h"
#include "c2r/io/csv.h"
#include "c2r/io/file.h"
#include "c2r/routing/routing.h"

namespace c2r {
namespace {

// The least weight that a trace's 16 bits round to infinity: they end at 65504.
constexpr float kRoundsToInfinity = 65520;

// Rows [begin, end) of the arrays.
struct Rows {
  std::int64_t begin = 0, end = 0;
};

std::vector<Rows> read_sequences(const std::filesystem::path& path, std::int64_t num_tokens) {
  const std::string text = read_text_file(path);
  CsvReader csv(text, path.native());
  const std::size_t row_start = csv.column("row_start"), n_tokens = csv.column("n_tokens");
  std::vector<Rows> sequences;
  std::int64_t filled = 0;
  while (csv.next()) {
    const std::int64_t begin = csv.integer(row_start, 0, num_tokens);
    C2R_REQUIRE(begin == filled, kInvalidFile,
                "{}: row_start is {}, but the sequences before it end at {}", csv.place(), begin,
                filled);
    filled += csv.integer(n_tokens, 0, num_tokens - begin);
    sequences.push_back({begin, filled});
  }
  C2R_REQUIRE(filled == num_tokens, kInvalidFile,
              "{}: the sequences end at row {}, but the trace has {} tokens", path.string(), filled,
              num_tokens);
  return sequences;
}

NpyFile read_weights(const std::filesystem::path& path, const std::vector<std::int64_t>& shape) {
  NpyFile file(path);
  const NpyView& array = file.array();
  C2R_REQUIRE(array.dtype == Dtype::kF16 || array.dtype == Dtype::kF32, kInvalidFile,
              "{}: weights are {}, but must be F16 or F32", file.path(), dtype_name(array.dtype));
  C2R_REQUIRE(array.shape.size() != 3 || array.shape[0] >= shape[0], kInvalidFile,
              "{}: covers only the first {} of {} tokens; a trace has weights of all its tokens or "
              "of none, so cut the ids or leave the weights out",
              file.path(), array.shape[0], shape[0]);
  C2R_REQUIRE(array.shape == shape, kInvalidFile, "{}: has shape {}, but the ids have {}",
              file.path(), shape_text(array.shape), shape_text(shape));
  return file;
}

// Which columns of the ids are choices. An array that is wider than top_k has columns of -1, which
// are left out if the request says top_k, and noted otherwise.
std::vector<std::int64_t> used_columns(const NpyFile& ids, const ImportRequest& request) {
  const std::int64_t width = ids.array().shape[2];
  std::vector<std::int64_t> all(
      static_cast<std::size_t>(std::min<std::int64_t>(width, kMaxExperts))),
      used;
  std::iota(all.begin(), all.end(), 0);
  if (std::ssize(all) < width) return all;  // too many in any case
  std::vector<bool> has_ids(all.size());
  std::int64_t num_used = 0;
  for (std::int64_t i = 0; i < ids.array().num_elements() && num_used < width; ++i) {
    const auto column = static_cast<std::size_t>(i % width);
    if (has_ids[column] || integer_at(ids.array(), i) == -1) continue;
    has_ids[column] = true;
    ++num_used;
  }
  for (const std::int64_t column : all) {
    if (has_ids[static_cast<std::size_t>(column)]) used.push_back(column);
  }
  if (used.empty() || num_used == width) return all;
  if (request.top_k == num_used) return used;
  if (!request.top_k) {
    add_note(request,
             fmt::format("check --top-k: {} of {} columns are -1 in every token and layer; "
                         "--top-k {} leaves them out",
                         width - num_used, width, num_used));
  }
  return all;
}

// Copies the slice of one layer out of arrays whose layers are interleaved.
class LayerReader {
 public:
  LayerReader(const NpyFile& ids, const NpyFile* weights, std::vector<std::int64_t> columns,
              std::int32_t num_experts)
      : ids_(ids), weights_(weights), columns_(std::move(columns)), num_experts_(num_experts) {}

  void read(std::int64_t layer, Rows rows) {
    const auto& shape = ids_.array().shape;
    const std::int64_t num_layers = shape[1], width = shape[2];
    topk_idx.clear();
    topk_weights.clear();
    for (std::int64_t t = rows.begin; t < rows.end; ++t) {
      for (const std::int64_t column : columns_) {
        const std::int64_t at = (t * num_layers + layer) * width + column;
        const std::int64_t id = integer_at(ids_.array(), at);
        C2R_REQUIRE(-1 <= id && id < num_experts_, kInvalidFile,
                    "{}: expert {} is not in [0, {}], nor -1 for none",
                    TokenPlace{ids_.path(), layer, t}.text(), id, num_experts_ - 1);
        topk_idx.push_back(ExpertId{static_cast<std::int32_t>(id)});
        if (weights_ == nullptr) continue;
        const float weight = float_at(weights_->array(), at);
        C2R_REQUIRE(std::abs(weight) < kRoundsToInfinity, kInvalidFile,  // nor is it NaN
                    "{}: a weight is {}, but must fit into 16 bits",
                    TokenPlace{weights_->path(), layer, t}.text(), weight);
        topk_weights.push_back(id == -1 ? 0 : weight);
      }
    }
  }

  std::vector<ExpertId> topk_idx;   // [rows, columns] of the layer that was read last
  std::vector<float> topk_weights;  // likewise; empty without weights

 private:
  const NpyFile& ids_;
  const NpyFile* weights_;
  std::vector<std::int64_t> columns_;  // that are read
  std::int32_t num_experts_;
};

ImportResult write_npy_trace(const ImportRequest& request) {
  TraceBuilder builder(request);
  C2R_REQUIRE(request.inputs.size() == 1, kInvalidArgument,
              "the npy format takes one array of ids, not {}", request.inputs.size());
  const NpyFile ids(request.inputs[0]);
  const auto& shape = ids.array().shape;
  C2R_REQUIRE(is_integer(ids.array().dtype) && shape.size() == 3, kInvalidFile,
              "{}: is {} {}, but must be integers [num_tokens, num_layers, top_k]", ids.path(),
              dtype_name(ids.array().dtype), shape_text(shape));
  C2R_REQUIRE(shape[2] >= 1, kInvalidFile, "{}: has 0 experts a token, but must have from 1 to {}",
              ids.path(), std::min(kMaxTopK, request.num_experts));
  const auto columns = used_columns(ids, request);
  builder.set_top_k(std::ssize(columns), ids.path());
  std::optional<NpyFile> weights;
  if (!request.weights.empty()) weights = read_weights(request.weights, shape);
  std::vector<Rows> sequences = {{0, shape[0]}};
  if (!request.sequences.empty()) sequences = read_sequences(request.sequences, shape[0]);

  builder.open(builder.layer_indices_of(static_cast<std::size_t>(shape[1]), ids.path()), ids.path(),
               weights.has_value());
  LayerReader reader(ids, weights ? &*weights : nullptr, columns, request.num_experts);
  for (const Rows& rows : sequences) {
    builder.writer().start_sequence();
    for (std::int64_t layer = 0; layer < shape[1]; ++layer) {
      reader.read(layer, rows);
      builder.writer().append(
          layer, reader.topk_idx, reader.topk_weights,
          fmt::format("{}, layer {}, from row {}", ids.path(), layer, rows.begin));
    }
    if (request.progress != nullptr) request.progress->update(rows.end, shape[0]);
  }
  return builder.finish();
}

}  // namespace

ImportFormat import_rows::npy() {
  return {.name = "npy",
          .summary = "array of ids [tokens, layers, top_k], with weights and sequences beside it",
          .makes = ImportKind::kTrace,
          .needs = {ImportField::kNumExperts},
          .uses = {ImportField::kTopK, ImportField::kLayerIndices, ImportField::kWeights,
                   ImportField::kSequences},
          .write_trace = write_npy_trace};
}

}  // namespace c2r
