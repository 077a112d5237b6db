// SGLang's `meta_info.routed_experts`: base64 of int32 [num_rows, num_hidden_layers, top_k], in a
// response or a list of responses.
//
// Layers in which every id is 0 are taken to be dense and left out, unless `layer_indices` names
// the MoE layers. The newer `meta_info.input_expert_ids` and `.output_expert_ids` are read as their
// `expert_ids_schema` says.
#include <algorithm>
#include <cstring>
#include <functional>
#include <numeric>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"
#include "c2r/import/formats_internal.h"
#include "c2r/import/trace_builder_internal.h"
#include "c2r/routing/routing.h"

namespace c2r {
namespace {

// The value of a base64 digit, or -1.
int digit_value(char c) {
  if ('A' <= c && c <= 'Z') return c - 'A';
  if ('a' <= c && c <= 'z') return c - 'a' + 26;
  if ('0' <= c && c <= '9') return c - '0' + 52;
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

// RFC 4648 with padding and without line breaks.
std::vector<std::byte> decode_base64(std::string_view text, std::string_view place) {
  C2R_REQUIRE(text.size() % 4 == 0, kInvalidFile,
              "{}: has {} base64 digits, which is not a multiple of 4", place, text.size());
  std::size_t num_padding = 0;
  while (num_padding < 2 && text.ends_with('=')) {
    text.remove_suffix(1);
    ++num_padding;
  }
  std::vector<std::byte> bytes;
  bytes.reserve(text.size() / 4 * 3 + 2);
  std::uint32_t bits = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const int value = digit_value(text[i]);
    C2R_REQUIRE(value >= 0, kInvalidFile, "{}: '{}' at {} is not a base64 digit", place,
                shown(text.substr(i, 1)), i);
    bits = bits << 6 | static_cast<std::uint32_t>(value);
    // After the digits 2, 3 and 4 of a group, 4, 2 and 0 bits are left over.
    if (i % 4 != 0) bytes.push_back(static_cast<std::byte>(bits >> (6 - 2 * (i % 4)) & 0xff));
  }
  return bytes;
}

// Decoded ids [num_rows, num_layers, top_k].
struct Ids {
  std::vector<std::int32_t> values;
  std::int64_t num_layers = 0, top_k = 0;

  std::int64_t num_rows() const { return std::ssize(values) / (num_layers * top_k); }
  std::span<const std::int32_t> at(std::int64_t row, std::int64_t layer) const {
    return std::span(values).subspan(static_cast<std::size_t>((row * num_layers + layer) * top_k),
                                     static_cast<std::size_t>(top_k));
  }
};

// Appends the rows of a base64 string to `ids`.
std::int64_t append_rows(const Json& base64, const std::string& place, Ids& ids) {
  const auto bytes = decode_base64(json_string(base64, "the base64 text", place), place);
  const std::int64_t row_bytes = ids.num_layers * ids.top_k * std::int64_t{sizeof(std::int32_t)};
  C2R_REQUIRE(std::ssize(bytes) % row_bytes == 0, kInvalidFile,
              "{}: has {} bytes, which are not whole rows of {} layers x {} int32", place,
              bytes.size(), ids.num_layers, ids.top_k);
  const std::size_t old_size = ids.values.size();
  ids.values.resize(old_size + bytes.size() / sizeof(std::int32_t));
  if (!bytes.empty()) std::memcpy(ids.values.data() + old_size, bytes.data(), bytes.size());
  return std::ssize(bytes) / row_bytes;
}

class SglangImporter {
 public:
  explicit SglangImporter(const ImportRequest& request) : request_(request), builder_(request) {}

  void add_file(const std::filesystem::path& path) {
    const Json json = read_json_file(path);
    if (!json.is_array()) return add_response(json, path.string());
    for (std::size_t i = 0; i < json.size(); ++i) {
      add_response(json[i], fmt::format("{}, response {}", path.string(), i));
    }
  }

  ImportResult finish() { return builder_.finish(); }

 private:
  void add_response(const Json& response, const std::string& place) {
    const Json& info = json_at(response, "meta_info", place);
    C2R_REQUIRE(info.is_object(), kInvalidFile, "{}: meta_info must be an object", place);
    if (info.contains("expert_ids_schema")) return add_with_schema(info, place);
    C2R_REQUIRE(info.contains("routed_experts"), kInvalidFile,
                "{}: meta_info has no routed_experts; was return_routed_experts in the request?",
                place);
    C2R_REQUIRE(
        request_.num_hidden_layers && request_.top_k, kInvalidArgument,
        "{}: does not say how many layers and experts a token has; give num_hidden_layers and "
        "top_k (c2r import --num-hidden-layers, --top-k)",
        place);
    C2R_REQUIRE(1 <= *request_.num_hidden_layers && *request_.num_hidden_layers <= kMaxLayers,
                kInvalidArgument, "num_hidden_layers is {}, but must be in [1, {}]",
                *request_.num_hidden_layers, kMaxLayers);
    builder_.set_top_k(*request_.top_k, place);
    Ids ids{.num_layers = *request_.num_hidden_layers, .top_k = *request_.top_k};
    append_rows(info["routed_experts"], place + ", routed_experts", ids);
    if (ids.num_rows() == 0) return;
    if (moe_layers_.empty()) choose_moe_layers(ids, place);
    require_dense_elsewhere(ids, place);
    add_ids(ids, moe_layers_, moe_layers_, place);
  }

  // Zeros in a dense layer cannot be told from choices of expert 0. With two or more experts a
  // token they are no valid choice; with one, the first response decides.
  void choose_moe_layers(const Ids& ids, const std::string& place) {
    moe_layers_ = request_.layer_indices;
    for (const std::int32_t layer : moe_layers_) {
      C2R_REQUIRE(0 <= layer && layer < ids.num_layers, kInvalidArgument,
                  "layer index {} is not in [0, {}], the layers of the model", layer,
                  ids.num_layers - 1);
    }
    if (!moe_layers_.empty()) return;
    for (std::int32_t layer = 0; layer < ids.num_layers; ++layer) {
      if (!is_all_zero(ids, layer)) moe_layers_.push_back(layer);
    }
    C2R_REQUIRE(!moe_layers_.empty(), kInvalidFile,
                "{}: every id is 0, so no layer is an MoE layer", place);
  }

  static bool is_all_zero(const Ids& ids, std::int64_t layer) {
    for (std::int64_t row = 0; row < ids.num_rows(); ++row) {
      if (std::ranges::any_of(ids.at(row, layer), [](auto id) { return id != 0; })) return false;
    }
    return true;
  }

  void require_dense_elsewhere(const Ids& ids, const std::string& place) const {
    for (std::int32_t layer = 0; layer < ids.num_layers; ++layer) {
      C2R_REQUIRE(
          std::ranges::binary_search(moe_layers_, layer) || is_all_zero(ids, layer), kInvalidFile,
          "{}: layer {} was taken to be dense, but has ids other than 0; name the MoE layers "
          "with layer_indices (c2r import --layers)",
          place, layer);
    }
  }

  void add_with_schema(const Json& info, const std::string& place) {
    const Json& schema = info["expert_ids_schema"];
    const std::string where = place + ", expert_ids_schema";
    const auto require = [&](const char* key, const char* value) {
      const std::string& found = json_string(json_at(schema, key, where), key, where);
      C2R_REQUIRE(found == value, kUnsupported, "{}: {} is '{}', but only '{}' is read", where, key,
                  shown(found), value);
    };
    require("dtype", "int32");
    require("layout", "row_major");
    require("id_space", "logical_global");
    const auto integer = [&](const char* key, std::int64_t min, std::int64_t max) {
      return json_integer(json_at(schema, key, where), min, max, key, where);
    };
    Ids ids{.num_layers = integer("num_layers", 1, kMaxLayers),
            .top_k = integer("top_k", 1, kMaxTopK)};
    builder_.set_top_k(ids.top_k, where);
    std::vector<std::int32_t> moe_layers;
    for (const Json& id :
         json_array(json_at(schema, "moe_layer_ids", where), "moe_layer_ids", where)) {
      moe_layers.push_back(
          static_cast<std::int32_t>(json_integer(id, 0, kMaxLayerIndex, "a MoE layer", where)));
    }
    const auto descent = std::ranges::adjacent_find(moe_layers, std::greater_equal{});
    C2R_REQUIRE(descent == moe_layers.end(), kInvalidFile,
                "{}: moe_layer_ids must ascend, but {} is followed by {}", where, *descent,
                *std::next(descent));
    for (const std::string direction : {"input", "output"}) {
      const std::string key = direction + "_expert_ids";
      if (!info.contains(key) || info[key].is_null()) continue;
      const std::int64_t num_rows = append_rows(info[key], fmt::format("{}, {}", place, key), ids);
      const std::string rows_key = direction + "_num_rows";
      C2R_REQUIRE(num_rows == integer(rows_key.c_str(), 0, INT64_MAX), kInvalidFile,
                  "{}: {} has {} rows, but {} is {}", place, key, num_rows, rows_key,
                  schema[rows_key].get<std::int64_t>());
    }
    add_ids(ids, axis_of(moe_layers, ids.num_layers, where), moe_layers, place);
  }

  // Where the MoE layers lie on the layer axis, which has all layers or just them.
  static std::vector<std::int32_t> axis_of(const std::vector<std::int32_t>& moe_layers,
                                           std::int64_t num_layers, const std::string& place) {
    std::vector<std::int32_t> axis = moe_layers;
    if (std::ssize(moe_layers) == num_layers) {
      std::iota(axis.begin(), axis.end(), 0);
      return axis;
    }
    for (const std::int32_t layer : moe_layers) {
      C2R_REQUIRE(layer < num_layers, kInvalidFile,
                  "{}: moe_layer_ids has {}, but there are {} layers", place, layer, num_layers);
    }
    return axis;
  }

  void add_ids(const Ids& ids, const std::vector<std::int32_t>& axis,
               const std::vector<std::int32_t>& layer_indices, const std::string& place) {
    SequenceChoices sequence{.layer_indices = layer_indices};
    sequence.topk_idx.resize(axis.size());
    for (std::size_t layer = 0; layer < axis.size(); ++layer) {
      for (std::int64_t row = 0; row < ids.num_rows(); ++row) {
        for (const std::int32_t id : ids.at(row, axis[layer])) {
          C2R_REQUIRE(
              0 <= id && id < request_.num_experts, kInvalidFile, "{}: expert {} is not in [0, {}]",
              TokenPlace{place, layer_indices[layer], row}.text(), id, request_.num_experts - 1);
          sequence.topk_idx[layer].push_back(ExpertId{id});
        }
      }
    }
    builder_.add_sequence(sequence, place);
  }

  const ImportRequest& request_;
  TraceBuilder builder_;
  std::vector<std::int32_t> moe_layers_;  // ascending; empty until the first response
};

ImportResult write_sglang_trace(const ImportRequest& request) {
  SglangImporter importer(request);
  for_each_input(request, [&](const auto& path) { importer.add_file(path); });
  return importer.finish();
}

}  // namespace

ImportFormat import_rows::sglang() {
  return {.name = "sglang",
          .summary = "SGLang responses with meta_info.routed_experts",
          .makes = ImportKind::kTrace,
          .needs = {ImportField::kNumExperts},
          .uses = {ImportField::kTopK, ImportField::kLayerIndices, ImportField::kNumHiddenLayers},
          .write_trace = write_sglang_trace};
}

}  // namespace c2r
