// Long tables with a row for each choice: CSV with the columns `layer`, `token` and `expert` in any
// order, or JSON objects with these keys. With `layer`, `expert` and `count` a table has loads.
// Rows may be in any order; other columns are ignored. A whole number may be written as a float, as
// programs do where a column lacks some.
//
// Tokens are numbers, of which only the order counts. A token with fewer choices in a layer than
// others has "no expert" in their place. A file is a sequence.
#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <span>

#include "c2r/core/error.h"
#include "c2r/core/parse_integer.h"
#include "c2r/import/counts_internal.h"
#include "c2r/import/formats_internal.h"
#include "c2r/import/json_inputs_internal.h"
#include "c2r/import/trace_builder_internal.h"
#include "c2r/io/csv.h"
#include "c2r/io/file.h"
#include "c2r/routing/routing.h"

namespace c2r {
namespace {

// What a table has in each row, and the limits of its numbers.
struct TableColumn {
  const char* name;
  std::int64_t max;
};

constexpr std::int64_t kMaxTokenNumber = std::int64_t{1} << 53;

// Calls `read` with the numbers of each row.
using ReadRow = std::function<void(std::span<const std::int64_t> row, const std::string& place)>;

bool is_csv(const std::filesystem::path& path) {
  const std::string text = read_text_file(path);
  const std::size_t begin = std::min(text.find_first_not_of(" \t\r\n\xef\xbb\xbf"), text.size());
  return begin == text.size() || (text[begin] != '{' && text[begin] != '[');
}

// @returns "3" for "3.0"
std::string_view without_zero_fraction(std::string_view text) {
  const std::size_t point = text.find('.');
  if (point == std::string_view::npos || point == 0) return text;
  return text.find_first_not_of('0', point + 1) == std::string_view::npos ? text.substr(0, point)
                                                                          : text;
}

std::int64_t whole_number(const CsvReader& csv, std::size_t position, const TableColumn& column) {
  const auto value = parse_integer(without_zero_fraction(csv.field(position)));
  if (value && 0 <= *value && *value <= column.max) return *value;
  return csv.integer(position, 0, column.max);  // says what is wrong
}

std::int64_t whole_number(const Json& value, const TableColumn& column, const std::string& place) {
  const double number = value.is_number_float() ? value.get<double>() : 0.5;
  const bool is_whole =
      std::abs(number) <= static_cast<double>(kMaxTokenNumber) && number == std::floor(number);
  return json_integer(is_whole ? Json(static_cast<std::int64_t>(number)) : value, 0, column.max,
                      column.name, place);
}

void read_csv(const std::filesystem::path& path, std::span<const TableColumn> columns,
              const ReadRow& read) {
  const std::string text = read_text_file(path), name = path.string();
  CsvReader csv(text, name);
  std::vector<std::size_t> positions;
  for (const TableColumn& column : columns) positions.push_back(csv.column(column.name));
  std::vector<std::int64_t> row(columns.size());
  while (csv.next()) {
    for (std::size_t c = 0; c < columns.size(); ++c) {
      row[c] = whole_number(csv, positions[c], columns[c]);
    }
    read(row, csv.place());
  }
}

void read_json_rows(const ImportRequest& request, std::span<const TableColumn> columns,
                    const ReadRow& read) {
  std::vector<std::int64_t> row(columns.size());
  for_each_json(request, is_list_of_objects, [&](const Json& json, const std::string& place) {
    for (std::size_t c = 0; c < columns.size(); ++c) {
      row[c] = whole_number(json_at(json, columns[c].name, place), columns[c], place);
    }
    read(row, place);
  });
}

// Reads one input of the request.
void read_table(const ImportRequest& request, const std::filesystem::path& path,
                std::span<const TableColumn> columns, const ReadRow& read) {
  if (is_csv(path)) return read_csv(path, columns, read);
  ImportRequest of_path = request;
  of_path.inputs = {path};
  of_path.progress = nullptr;
  read_json_rows(of_path, columns, read);
}

struct Choice {
  std::int64_t token = 0;
  ExpertId expert{};
};

using LayerChoices = std::map<std::int32_t, std::vector<Choice>>;  // in the order of the rows

LayerChoices read_choices(const ImportRequest& request, const std::filesystem::path& path) {
  const TableColumn columns[] = {
      {"layer", kMaxLayerIndex}, {"token", kMaxTokenNumber}, {"expert", request.num_experts - 1}};
  LayerChoices layers;
  read_table(request, path, columns, [&](auto row, const std::string& place) {
    auto& choices = layers[static_cast<std::int32_t>(row[0])];
    C2R_REQUIRE(layers.size() <= kMaxLayers, kInvalidFile, "{}: there are more than {} layers",
                place, kMaxLayers);
    choices.push_back({row[1], ExpertId{static_cast<std::int32_t>(row[2])}});
  });
  return layers;
}

// All tokens that have a choice in any layer, ascending.
std::vector<std::int64_t> chosen_tokens(const LayerChoices& layers) {
  std::vector<std::int64_t> tokens;
  for (const auto& [layer, choices] : layers) {
    for (const Choice& choice : choices) tokens.push_back(choice.token);
    std::ranges::sort(tokens);
    tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
  }
  return tokens;
}

// The most choices of a token in a layer. Sorts the choices by token; those of one keep their
// order.
std::int64_t sort_choices(LayerChoices& layers) {
  std::int64_t most = 0;
  for (auto& [layer, choices] : layers) {
    std::ranges::stable_sort(choices, {}, &Choice::token);
    std::int64_t num_equal = 0;
    for (std::size_t i = 0; i < choices.size(); ++i) {
      num_equal = i > 0 && choices[i].token == choices[i - 1].token ? num_equal + 1 : 1;
      most = std::max(most, num_equal);
    }
  }
  return most;
}

class TableImporter {
 public:
  explicit TableImporter(const ImportRequest& request) : request_(request), builder_(request) {}

  void add_file(const std::filesystem::path& path) {
    const std::string place = path.string();
    LayerChoices layers = read_choices(request_, path);
    C2R_REQUIRE(!layers.empty(), kInvalidFile, "{}: has no rows", place);
    const auto tokens = chosen_tokens(layers);
    const std::int64_t most = sort_choices(layers);
    // A later file may have fewer choices of every token, but not more.
    const std::int64_t top_k = request_.top_k.value_or(
        static_cast<std::int32_t>(std::max<std::int64_t>(most, builder_.top_k())));
    C2R_REQUIRE(most <= top_k, kInvalidFile,
                "{}: a token has {} experts in a layer, but top_k is {}", place, most, top_k);
    builder_.set_top_k(top_k, place);
    SequenceChoices sequence;
    for (const auto& [layer, choices] : layers) {
      sequence.layer_indices.push_back(layer);
      sequence.topk_idx.push_back(ids_of_layer(choices, tokens, top_k));
    }
    builder_.add_sequence(sequence, place);
  }

  ImportResult finish() {
    ImportResult result = builder_.finish();
    if (num_missing_ > 0) {
      add_note(request_,
               fmt::format("no expert: {} of {} choices, where a token has fewer than {} "
                           "in a layer",
                           num_missing_,
                           result.num_tokens * result.header.num_layers() * result.header.top_k,
                           result.header.top_k));
    }
    return result;
  }

 private:
  // [num_tokens, top_k]
  std::vector<ExpertId> ids_of_layer(const std::vector<Choice>& choices,
                                     const std::vector<std::int64_t>& tokens, std::int64_t top_k) {
    std::vector<ExpertId> ids(tokens.size() * static_cast<std::size_t>(top_k), kNoExpert);
    num_missing_ += std::ssize(ids) - std::ssize(choices);
    std::size_t next = 0;
    for (std::size_t t = 0; t < tokens.size(); ++t) {
      for (std::size_t k = 0; next < choices.size() && choices[next].token == tokens[t]; ++k) {
        ids[t * static_cast<std::size_t>(top_k) + k] = choices[next++].expert;
      }
    }
    return ids;
  }

  const ImportRequest& request_;
  TraceBuilder builder_;
  std::int64_t num_missing_ = 0;
};

ImportResult write_table_trace(const ImportRequest& request) {
  TableImporter importer(request);
  for_each_input(request, [&](const auto& path) { importer.add_file(path); });
  return importer.finish();
}

CollaborationStatistics read_table_loads(const ImportRequest& request) {
  constexpr TableColumn kColumns[] = {
      {"layer", kMaxLayerIndex}, {"expert", kMaxExperts - 1}, {"count", INT64_MAX}};
  std::map<std::int32_t, counts::Loads> layers;
  std::size_t num_experts = static_cast<std::size_t>(request.num_experts);
  for_each_input(request, [&](const auto& path) {
    read_table(request, path, kColumns, [&](auto row, const std::string& place) {
      counts::Loads& loads = layers[static_cast<std::int32_t>(row[0])];
      C2R_REQUIRE(layers.size() <= kMaxLayers, kInvalidFile, "{}: there are more than {} layers",
                  place, kMaxLayers);
      const auto expert = static_cast<std::size_t>(row[1]);
      num_experts = std::max(num_experts, expert + 1);
      if (loads.size() <= expert) loads.resize(expert + 1);
      counts::add(row[2], loads[expert], place);
    });
  });
  const std::string path = request.inputs[0].string();
  C2R_REQUIRE(!layers.empty(), kInvalidFile, "{}: has no rows", path);
  for (auto& [layer, loads] : layers) loads.resize(num_experts);
  auto statistics =
      counts::statistics_of_loads(request, layers,
                                  {.model = request.model,
                                   .num_experts = static_cast<std::int32_t>(num_experts),
                                   .top_k = *request.top_k},
                                  path);
  counts::require_layers(request, statistics);
  return statistics;
}

}  // namespace

ImportFormat import_rows::table() {
  return {.name = "table",
          .summary = "CSV or JSON lines with layer, token and expert of each choice",
          .makes = ImportKind::kTrace,
          .needs = {ImportField::kNumExperts},
          .uses = {ImportField::kTopK, ImportField::kLayerIndices},
          .endings = {".csv", ".jsonl", ".json"},
          .write_trace = write_table_trace};
}

ImportFormat import_rows::table_loads() {
  return {.name = "table-loads",
          .summary = "CSV or JSON lines with layer, expert and count: loads without pairs",
          .makes = ImportKind::kStatistics,
          .needs = {ImportField::kTopK},
          .uses = {ImportField::kNumExperts, ImportField::kLayerIndices},
          .endings = {".csv", ".jsonl", ".json"},
          .statistics = read_table_loads};
}

}  // namespace c2r
