// One array of whole numbers [num_tokens, num_layers, top_k], or with its axes in the order that
// the request names, as collections of traces publish them, in a .npy or a .npz file; -1 marks no
// expert. `weights` is an array of f2 or f4 of the same shape: a trace has
// weights of all its tokens or of none, so one that covers only the first rows is an error.
// `sequences` is a CSV file with the columns row_start and n_tokens, whose rows tile the tokens in
// order.
#include "c2r/io/npy.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "c2r/core/error.h"
#include "c2r/import/arrays/id_array_internal.h"
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
std::vector<std::int64_t> used_columns(const IdArray& ids, const ImportRequest& request) {
  const std::int64_t width = ids.width();
  std::vector<std::int64_t> all(
      static_cast<std::size_t>(std::min<std::int64_t>(width, kMaxExperts))),
      used;
  std::iota(all.begin(), all.end(), 0);
  if (std::ssize(all) < width) return all;  // too many in any case
  std::vector<bool> has_ids(all.size());
  std::int64_t num_used = 0;
  const std::int64_t num_rows = ids.num_tokens() * ids.num_layers();
  for (std::int64_t row = 0; row < num_rows && num_used < width; ++row) {
    for (const std::int64_t k : all) {
      const auto column = static_cast<std::size_t>(k);
      const std::int64_t at = ids.position(row / ids.num_layers(), row % ids.num_layers(), k);
      if (has_ids[column] || ids.at(at) == -1) continue;
      has_ids[column] = true;
      ++num_used;
    }
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
  LayerReader(const IdArray& ids, std::string place, const NpyFile* weights,
              std::vector<std::int64_t> columns, std::int32_t num_experts)
      : ids_(ids),
        place_(std::move(place)),
        weights_(weights),
        columns_(std::move(columns)),
        num_experts_(num_experts) {}

  void read(std::int64_t layer, Rows rows) {
    topk_idx.clear();
    topk_weights.clear();
    for (std::int64_t t = rows.begin; t < rows.end; ++t) {
      for (const std::int64_t column : columns_) {
        const std::int64_t at = ids_.position(t, layer, column);
        const std::int64_t id = ids_.at(at);
        C2R_REQUIRE(-1 <= id && id < num_experts_, kInvalidFile,
                    "{}: expert {} is not in [0, {}], nor -1 for none",
                    TokenPlace{place_, layer, t}.text(), id, num_experts_ - 1);
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
  const IdArray& ids_;
  std::string place_;
  const NpyFile* weights_;
  std::vector<std::int64_t> columns_;  // that are read
  std::int32_t num_experts_;
};

ImportResult write_array(const ImportRequest& request, const IdElements& elements,
                         const IdArray& ids) {
  TraceBuilder builder(request);
  const std::string& place = elements.place;
  C2R_REQUIRE(ids.width() >= 1, kInvalidFile,
              "{}: has 0 experts a token, but must have from 1 to {}", place,
              std::min(kMaxTopK, request.num_experts));
  const auto columns = used_columns(ids, request);
  builder.set_top_k(std::ssize(columns), place);
  std::optional<NpyFile> weights;
  if (!request.weights.empty())
    weights = read_weights(request.weights, elements.array.array().shape);
  std::vector<Rows> sequences = {{0, ids.num_tokens()}};
  if (!request.sequences.empty()) sequences = read_sequences(request.sequences, ids.num_tokens());

  const auto layers =
      elements.layers.empty()
          ? builder.layer_indices_of(static_cast<std::size_t>(ids.num_layers()), place)
          : elements.layers;
  builder.open(layers, place, weights.has_value());
  LayerReader reader(ids, place, weights ? &*weights : nullptr, columns, request.num_experts);
  for (const Rows& rows : sequences) {
    builder.writer().start_sequence();
    for (std::int64_t layer = 0; layer < ids.num_layers(); ++layer) {
      reader.read(layer, rows);
      builder.writer().append(layer, reader.topk_idx, reader.topk_weights,
                              fmt::format("{}, layer {}, from row {}", place, layer, rows.begin));
    }
    if (request.progress != nullptr) request.progress->update(rows.end, ids.num_tokens());
  }
  return builder.finish();
}

// "--axes LTK, which is 500 tokens of 32 layers"
std::string axes_text(const std::string& axes, const IdElements& elements) {
  const IdArray ids(elements.array.array(), elements.place, axes);
  return fmt::format("--axes {}, which is {} tokens of {} layers, top-{}", axes, ids.num_tokens(),
                     ids.num_layers(), ids.width());
}

ImportResult write_npy_trace(const ImportRequest& request) {
  C2R_REQUIRE(request.inputs.size() == 1, kInvalidArgument,
              "the npy format takes one array of ids, not {}", request.inputs.size());
  const IdElements elements = read_id_elements(request.inputs[0]);
  const NpyView& array = elements.array.array();
  C2R_REQUIRE(request.axes.empty() || elements.axes.empty(), kInvalidArgument,
              "{}: has an array for each layer, so that --axes does not apply", elements.place);
  const std::string& axes = elements.axes.empty() ? request.axes : elements.axes;
  const IdArray ids(array, elements.place, axes.empty() ? "TLK" : axes);
  const auto likely = axes.empty() ? likely_axes(array, elements.place, request.num_experts)
                                   : std::optional<std::string>();
  if (!elements.not_read.empty()) {
    add_note(request, fmt::format("left out: the arrays {}", fmt::join(elements.not_read, ", ")));
  }
  if (!likely) return write_array(request, elements, ids);
  add_note(request, fmt::format("check --axes: the shape is {}; perhaps it is {}",
                                shape_text(array.shape), axes_text(*likely, elements)));
  try {
    return write_array(request, elements, ids);
  } catch (const Error& e) {
    throw Error(e.code(),
                fmt::format("{}; perhaps it is {}", e.what(), axes_text(*likely, elements)));
  }
}

}  // namespace

ImportFormat import_rows::npy() {
  return {.name = "npy",
          .summary = "array of ids [tokens, layers, top_k], .npy or .npz, with weights beside it",
          .makes = ImportKind::kTrace,
          .needs = {ImportField::kNumExperts},
          .uses = {ImportField::kTopK, ImportField::kLayerIndices, ImportField::kWeights,
                   ImportField::kSequences, ImportField::kAxes},
          .write_trace = write_npy_trace};
}

}  // namespace c2r
