// The CSV of moe-beyond (ngavhane/moe-beyond): Layer ID, Batch Number, Token, Activated Expert IDs;
// all tokens of one layer, then of the next. The token texts of the layers are compared.
#include <map>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"
#include "c2r/import/formats_internal.h"
#include "c2r/import/trace_builder_internal.h"
#include "c2r/io/csv.h"
#include "c2r/io/file.h"

namespace c2r {
namespace {

// Checks that every layer lists the same tokens: nothing else ties their rows together.
class TokenTexts {
 public:
  void check(std::int32_t layer, std::int64_t token, const std::string& text,
             const CsvReader& csv) {
    if (texts_.empty()) first_layer_ = layer;
    if (layer == first_layer_) {
      texts_.push_back(text);
      return;
    }
    C2R_REQUIRE(token < std::ssize(texts_), kInvalidFile,
                "{}: layer {} has more tokens than layer {}, which has {}", csv.place(), layer,
                first_layer_, texts_.size());
    const std::string& expected = texts_[static_cast<std::size_t>(token)];
    C2R_REQUIRE(text == expected, kInvalidFile,
                "{}: token {} of layer {} is '{}', but in layer {} it is '{}'", csv.place(), token,
                layer, shown(text), first_layer_, shown(expected));
  }

 private:
  std::int32_t first_layer_ = 0;
  std::vector<std::string> texts_;  // of the first layer's tokens
};

SequenceChoices parse_moe_beyond_sequence(const std::filesystem::path& path,
                                          TraceBuilder& builder) {
  const std::string text = read_text_file(path);
  CsvReader csv(text, path.native());
  const std::size_t layer_column = csv.column("Layer ID"),
                    batch_column = csv.column("Batch Number");
  const std::size_t token_column = csv.column("Token");
  const std::size_t ids_column = csv.column("Activated Expert IDs");

  std::map<std::int32_t, std::vector<ExpertId>> layers;
  TokenTexts texts;
  std::optional<std::int64_t> batch;
  while (csv.next()) {
    const auto layer = static_cast<std::int32_t>(csv.integer(layer_column, 0, INT32_MAX));
    const std::int64_t row_batch = csv.integer(batch_column, 0, INT64_MAX);
    if (!batch) batch = row_batch;
    C2R_REQUIRE(row_batch == *batch, kUnsupported,
                "{}: Batch Number is {} after {}; a file must hold one sequence", csv.place(),
                row_batch, *batch);
    auto& ids = layers[layer];
    const std::int64_t token = ids.empty() ? 0 : std::ssize(ids) / builder.top_k();
    texts.check(layer, token, csv.field(token_column), csv);
    const std::string place = csv.place();
    builder.append_ids(parse_json(csv.field(ids_column), place), 0, {place, layer, token}, ids);
  }

  SequenceChoices sequence;
  for (auto& [layer, ids] : layers) {
    sequence.layer_indices.push_back(layer);
    sequence.topk_idx.push_back(std::move(ids));
    C2R_REQUIRE(sequence.topk_idx.back().size() == sequence.topk_idx[0].size(), kInvalidFile,
                "{}: layer {} has {} tokens, but layer {} has {}", path.string(), layer,
                sequence.topk_idx.back().size() / static_cast<std::size_t>(builder.top_k()),
                sequence.layer_indices[0],
                sequence.topk_idx[0].size() / static_cast<std::size_t>(builder.top_k()));
  }
  return sequence;
}

ImportResult write_moe_beyond_trace(const ImportRequest& request) {
  TraceBuilder builder(request);
  for_each_input(request, [&](const std::filesystem::path& path) {
    builder.add_sequence(parse_moe_beyond_sequence(path, builder), path.native());
  });
  return builder.finish();
}

}  // namespace

ImportFormat import_rows::moe_beyond() {
  return {.name = "moe-beyond",
          .summary = "CSV of ngavhane/moe-beyond, a row for each layer and token",
          .makes = ImportKind::kTrace,
          .needs = {ImportField::kNumExperts},
          .uses = {ImportField::kTopK, ImportField::kLayerIndices},
          .endings = {".csv"},
          .write_trace = write_moe_beyond_trace};
}

}  // namespace c2r
