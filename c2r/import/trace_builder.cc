// A trace under construction: its shape as the inputs tell it, and ids out of JSON.
#include <fmt/ranges.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "c2r/core/error.h"
#include "c2r/import/trace_builder_internal.h"
#include "c2r/routing/routing.h"

namespace c2r {
namespace {

// "layers 1, 2, 3", shortened where there are many.
std::string layers_text(std::span<const std::int32_t> layers) {
  if (layers.size() <= 8) return fmt::format("layers {}", fmt::join(layers, ", "));
  return fmt::format("{} layers from {} to {}", layers.size(), layers.front(), layers.back());
}

}  // namespace

std::string TokenPlace::text() const {
  return fmt::format("{}, layer {}, token {}", file, layer, token);
}

std::vector<std::int32_t> TraceBuilder::layer_indices_of(std::size_t num_layers,
                                                         std::string_view place) const {
  C2R_REQUIRE(1 <= num_layers && num_layers <= kMaxLayers, kInvalidFile,
              "{}: has {} MoE layers, but must have from 1 to {}", place, num_layers, kMaxLayers);
  if (request_.layer_indices.empty()) {
    std::vector<std::int32_t> counted(num_layers);
    std::iota(counted.begin(), counted.end(), 0);
    return counted;
  }
  C2R_REQUIRE(request_.layer_indices.size() == num_layers, kInvalidFile,
              "{}: has {} layers, but {} layer indices were given", place, num_layers,
              request_.layer_indices.size());
  return request_.layer_indices;
}

void TraceBuilder::open(const std::vector<std::int32_t>& layer_indices, std::string_view place,
                        bool has_weights) {
  C2R_REQUIRE(!layer_indices.empty(), kInvalidFile, "{}: has no MoE layer", place);
  if (writer_ == nullptr) {
    C2R_REQUIRE(request_.layer_indices.empty() || request_.layer_indices == layer_indices,
                kInvalidFile, "{}: has {}, but {} were given", place, layers_text(layer_indices),
                layers_text(request_.layer_indices));
    TraceHeader header{.model = request_.model,
                       .num_experts = request_.num_experts,
                       .top_k = top_k_,
                       .layer_indices = layer_indices};
    check_header(header, place);
    writer_ = std::make_unique<TraceWriter>(request_.output, std::move(header), has_weights);
    layer_indices_ = layer_indices;
  }
  C2R_REQUIRE(layer_indices == layer_indices_, kInvalidFile,
              "{}: has {}, but what was read before it has {}", place, layers_text(layer_indices),
              layers_text(layer_indices_));
}

void TraceBuilder::set_top_k(std::int64_t top_k, std::string_view place) {
  const std::int32_t max = std::min(kMaxTopK, request_.num_experts);
  C2R_REQUIRE(1 <= top_k && top_k <= max, kInvalidFile,
              "{}: has {} experts a token, but must have from 1 to {}", place, top_k, max);
  C2R_REQUIRE(request_.top_k.value_or(top_k) == top_k, kInvalidFile,
              "{}: has {} experts a token, but top_k is given as {}", place, top_k,
              *request_.top_k);
  C2R_REQUIRE(top_k_ == 0 || top_k_ == top_k, kInvalidFile,
              "{}: has {} experts a token, but what was read before it has {}", place, top_k,
              top_k_);
  top_k_ = static_cast<std::int32_t>(top_k);
}

void TraceBuilder::append_ids(const Json& ids, std::int32_t min_id, const TokenPlace& place,
                              std::vector<ExpertId>& out) {
  if (!ids.is_array()) (void)json_array(ids, "the list of experts", place.text());  // throws
  const auto& array = ids.get_ref<const Json::array_t&>();
  if (std::ssize(array) != top_k_ || array.empty()) set_top_k(std::ssize(array), place.text());
  for (const Json& id : array) {
    // The common case needs no text.
    const bool is_plain =
        id.is_number_unsigned() &&
        id.get<std::uint64_t>() < static_cast<std::uint64_t>(request_.num_experts);
    out.push_back(ExpertId{static_cast<std::int32_t>(
        is_plain
            ? id.get<std::int64_t>()
            : json_integer(id, min_id, request_.num_experts - 1, "an expert id", place.text()))});
  }
}

void TraceBuilder::add_sequence(const SequenceChoices& sequence, std::string_view place) {
  if (sequence.topk_idx.empty() || sequence.topk_idx[0].empty()) return;
  start_sequence(sequence.layer_indices, place);
  for (std::size_t layer = 0; layer < sequence.topk_idx.size(); ++layer) {
    append_layer(layer, sequence.topk_idx[layer], place);
  }
}

void TraceBuilder::start_sequence(const std::vector<std::int32_t>& layer_indices,
                                  std::string_view place) {
  open(layer_indices, place);
  writer_->start_sequence();
}

void TraceBuilder::append_layer(std::size_t layer, std::span<const ExpertId> topk_idx,
                                std::string_view place) {
  writer_->append(static_cast<std::int64_t>(layer), topk_idx, {},
                  fmt::format("{}, layer {}", place, layer_indices_[layer]));
}

ImportResult TraceBuilder::finish() {
  C2R_REQUIRE(writer_ != nullptr && writer_->num_tokens() > 0, kInvalidFile,
              "{}: has no tokens to import", request_.inputs[0].string());
  writer_->finish();
  const Trace trace(request_.output);
  return {.makes = ImportKind::kTrace,
          .header = trace.header(),
          .num_tokens = trace.num_tokens(),
          .num_sequences = std::ssize(trace.sequence_starts())};
}

}  // namespace c2r
