// Decides which layers of returned ids are dense and which rows belong into a trace.
#include <algorithm>
#include <numeric>

#include "c2r/core/error.h"
#include "c2r/import/formats_internal.h"
#include "c2r/import/responses/routed_ids_internal.h"
#include "c2r/routing/routing.h"

namespace c2r {
namespace {

constexpr auto kIsNoExpert = [](ExpertId id) { return id == kNoExpert; };

bool is_without_ids(const RoutedIds& ids, std::int64_t row) {
  for (std::int64_t layer = 0; layer < ids.num_layers; ++layer) {
    if (!std::ranges::all_of(ids.at(row, layer), kIsNoExpert)) return false;
  }
  return true;
}

// A row without any id is of a token that the server does not know, and says nothing about layers.
bool is_dense(const RoutedIds& ids, std::int64_t layer) {
  for (std::int64_t row = 0; row < ids.num_rows(); ++row) {
    const bool is_zero =
        std::ranges::all_of(ids.at(row, layer), [](ExpertId id) { return id == ExpertId{0}; });
    if (!is_zero && !is_without_ids(ids, row)) return false;
  }
  return true;
}

}  // namespace

void RoutedIdsImporter::add(const RoutedIds& ids, const std::string& place) {
  if (ids.num_rows() == 0) return leave_out(fmt::format("{}: has no tokens to import", place));
  bool has_ids = false;
  for (std::int64_t row = 0; row < ids.num_rows() && !has_ids; ++row) {
    has_ids = !is_without_ids(ids, row);
  }
  if (has_ids) {
    if (layer_indices_.empty()) {
      choose_layers(ids, place);
      warn_of_constant_columns(ids, place);
    }
    require_dense_elsewhere(ids, place);
  }
  add(ids, axis_, layer_indices_, place);
}

void RoutedIdsImporter::choose_layers(const RoutedIds& ids, const std::string& place) {
  layer_indices_ = request_.layer_indices;
  if (layer_indices_.empty()) {
    for (std::int32_t layer = 0; layer < ids.num_layers; ++layer) {
      if (!is_dense(ids, layer)) layer_indices_.push_back(layer);
    }
    C2R_REQUIRE(!layer_indices_.empty(), kInvalidFile,
                "{}: every id is 0, so no layer is an MoE layer; name the MoE layers with "
                "layer_indices (c2r import --layers)",
                place);
    axis_ = layer_indices_;
    return;
  }
  axis_ = layer_indices_;
  if (std::ssize(layer_indices_) == ids.num_layers) {  // the axis has MoE layers only
    std::iota(axis_.begin(), axis_.end(), 0);
    return;
  }
  for (const std::int32_t layer : layer_indices_) {
    C2R_REQUIRE(layer < ids.num_layers, kInvalidFile,
                "{}: has {} layers, which are neither the {} given nor all layers of the model: "
                "layer index {} is not in [0, {}]",
                place, ids.num_layers, layer_indices_.size(), layer, ids.num_layers - 1);
  }
}

void RoutedIdsImporter::require_dense_elsewhere(const RoutedIds& ids,
                                                const std::string& place) const {
  C2R_REQUIRE(axis_.back() < ids.num_layers, kInvalidFile,
              "{}: has {} layers, but what was read before it has more", place, ids.num_layers);
  for (std::int32_t layer = 0; layer < ids.num_layers; ++layer) {
    C2R_REQUIRE(std::ranges::binary_search(axis_, layer) || is_dense(ids, layer), kInvalidFile,
                "{}: layer {} was taken to be dense, but has ids other than 0; name the MoE layers "
                "with layer_indices (c2r import --layers)",
                place, layer);
  }
}

// Wrong extents of a flat array mix layers and columns; then zeros of dense layers fill columns.
void RoutedIdsImporter::warn_of_constant_columns(const RoutedIds& ids,
                                                 const std::string& place) const {
  constexpr std::int64_t kEnoughRows = 4;
  if (ids.num_rows() < kEnoughRows || ids.top_k < 2) return;
  for (const std::int32_t layer : axis_) {
    for (std::size_t k = 0; k < static_cast<std::size_t>(ids.top_k); ++k) {
      std::int64_t num_zeros = 0;
      for (std::int64_t row = 0; row < ids.num_rows(); ++row) {
        num_zeros += ids.at(row, layer)[k] == ExpertId{0} ? 1 : 0;
      }
      if (num_zeros < ids.num_rows()) continue;
      return add_note(request_,
                      fmt::format("check --num-hidden-layers and --top-k: in {}, layer {}, "
                                  "choice {} is expert 0 in all {} tokens",
                                  place, layer, k, ids.num_rows()));
    }
  }
}

bool RoutedIdsImporter::is_wanted(const RoutedIds& ids, std::int64_t row,
                                  const std::string& place) {
  if (request_.skip_cached) {
    C2R_REQUIRE(ids.num_cached_rows.has_value(), kInvalidFile,
                "{}: does not say how many tokens were cached, which --skip-cached needs", place);
    if (row < *ids.num_cached_rows) {
      ++num_cached_;
      return false;
    }
  }
  if (request_.phase) {
    C2R_REQUIRE(ids.num_prompt_rows.has_value(), kInvalidFile,
                "{}: does not say how many tokens the prompt has, which --phase needs", place);
    const Phase phase = row < *ids.num_prompt_rows ? Phase::kPrefill : Phase::kDecode;
    if (phase != *request_.phase) {
      ++num_of_other_phase_;
      return false;
    }
  }
  return true;
}

void RoutedIdsImporter::add(const RoutedIds& ids, const std::vector<std::int32_t>& axis,
                            const std::vector<std::int32_t>& layer_indices,
                            const std::string& place) {
  const std::int32_t num_experts = request_.num_experts;
  std::vector<std::int64_t> rows;
  for (std::int64_t row = 0; row < ids.num_rows(); ++row) {
    const bool is_unknown = std::ranges::all_of(axis, [&](std::int32_t layer) {
      return std::ranges::all_of(ids.at(row, layer), kIsNoExpert);
    });
    if (is_unknown) {
      ++num_unknown_;
    } else if (is_wanted(ids, row, place)) {
      rows.push_back(row);
    }
  }
  if (rows.empty()) return;
  num_rows_ += std::ssize(rows);
  builder_.start_sequence(layer_indices, place);
  std::vector<ExpertId> topk_idx;  // of one layer, so that the ids are not in memory twice
  topk_idx.reserve(rows.size() * static_cast<std::size_t>(ids.top_k));
  for (std::size_t layer = 0; layer < axis.size(); ++layer) {
    topk_idx.clear();
    for (const std::int64_t row : rows) {
      for (const ExpertId id : ids.at(row, axis[layer])) {
        const auto number = static_cast<std::int32_t>(id);
        C2R_REQUIRE(id == kNoExpert || (0 <= number && number < num_experts), kInvalidFile,
                    "{}: expert {} is not in [0, {}]",
                    TokenPlace{place, layer_indices[layer], row}.text(), number, num_experts - 1);
        topk_idx.push_back(id);
      }
    }
    builder_.append_layer(layer, topk_idx, place);
  }
}

void RoutedIdsImporter::leave_out(std::string why) {
  if (num_left_out_++ == 0) first_left_out_ = std::move(why);
}

ImportResult RoutedIdsImporter::finish() {
  C2R_REQUIRE(num_left_out_ == 0 || num_rows_ > 0, kInvalidFile, "{}", first_left_out_);
  ImportResult result = builder_.finish();
  result.num_skipped_tokens = num_unknown_ + num_cached_ + num_of_other_phase_;
  if (num_left_out_ > 0) {
    add_note(request_, fmt::format("left out: {} responses without ids", num_left_out_));
  }
  if (num_unknown_ > 0) {
    add_note(request_, fmt::format("left out: {} tokens that are -1 in every layer: cached, or "
                                   "padding",
                                   num_unknown_));
  }
  if (num_cached_ > 0) {
    add_note(request_, fmt::format("left out: {} cached tokens, which were not sent", num_cached_));
  }
  if (num_of_other_phase_ > 0) {
    add_note(request_, fmt::format("left out: {} tokens of the other phase", num_of_other_phase_));
  }
  return result;
}

}  // namespace c2r
