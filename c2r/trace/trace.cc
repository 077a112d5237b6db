// The trace file: checked when it is opened and where it is read.
#include "c2r/trace/trace.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "c2r/core/error.h"
#include "c2r/io/safetensors.h"
#include "c2r/routing/routing.h"
#include "c2r/trace/trace_metadata.h"
#include "c2r/trace/trace_tensors_internal.h"

namespace c2r {

using internal::check_appended;
using internal::check_token_ids;
using internal::idx_name;
using internal::is_stored_in_u8;
using internal::kTokenIdsName;
using internal::logits_name;
using internal::stored_ids;
using internal::weights_name;

namespace {

template <class Stored>
void decode(std::span<const Stored> stored, std::span<ExpertId> ids) {
  constexpr auto kNone = std::numeric_limits<Stored>::max();
  std::ranges::transform(stored.first(ids.size()), ids.begin(),
                         [](Stored id) { return id == kNone ? kNoExpert : ExpertId{id}; });
}

// Refuses what a file holds, from `first_token` of the layer on.
void check_stored(MatrixView<const ExpertId> topk_idx, std::int32_t num_experts,
                  const std::string& path, std::int64_t layer, std::int64_t first_token) {
  const auto invalid = find_invalid_choice(topk_idx, num_experts);
  if (!invalid) return;
  const std::int64_t token = first_token + invalid->token;
  C2R_REQUIRE(invalid->first_column, kInvalidFile,
              "{}: layer {}, token {} names expert {}, but the trace has experts 0 to {}", path,
              layer, token, invalid->expert, num_experts - 1);
  C2R_THROW(kInvalidFile, "{}: layer {}, token {} names expert {} twice", path, layer, token,
            invalid->expert);
}

// @returns rows [first_row, first_row + rows) of a tensor of f16 [.., cols]
Matrix<float> read_halves(std::span<const Half> tensor, std::int64_t first_row, std::int64_t rows,
                          std::int64_t cols) {
  Matrix<float> out(rows, cols);
  const auto part = tensor.subspan(static_cast<std::size_t>(first_row * cols), out.all().size());
  to_f32(std::as_bytes(part).data(), ElementType::kF16, out.all());
  return out;
}

}  // namespace

struct Trace::Storage {
  std::string name;
  std::optional<SafetensorsFile> file;
  // Without a file: the ids of each layer in one of the two types. [num_layers][num_tokens x top_k]
  std::vector<std::vector<std::uint8_t>> u8 = {};
  std::vector<std::vector<std::uint16_t>> u16 = {};
  std::vector<TokenId> token_ids = {};  // [num_tokens], or empty
};

Trace::Trace(const std::filesystem::path& path)
    : storage_(new Storage{.name = {}, .file = SafetensorsFile(path)}) {
  const SafetensorsFile& file = *storage_->file;
  storage_->name = file.path();
  header_ = read_trace_metadata(file, kTraceFormat, "a routing trace");
  const auto& first = file.tensor(idx_name(0));
  num_tokens_ = first.shape.empty() ? 0 : first.shape[0];
  has_weights_ = file.has(weights_name(0));
  has_logits_ = file.metadata_at("version") == kTraceVersionWithLogits;
  const std::int64_t shape[] = {num_tokens_, header_.top_k};
  const std::int64_t logits_shape[] = {num_tokens_, header_.num_experts};
  const Dtype dtype = is_stored_in_u8(header_.num_experts) ? Dtype::kU8 : Dtype::kU16;
  for (std::int64_t layer = 0; layer < header_.num_layers(); ++layer) {
    (void)file.checked_bytes(idx_name(layer), dtype, shape);
    if (has_weights_) (void)file.elements<Half>(weights_name(layer), shape);
    C2R_REQUIRE(has_weights_ || !file.has(weights_name(layer)), kInvalidFile,
                "{}: has '{}', but no weights of layer 0; all layers have them or none",
                file.path(), weights_name(layer));
    if (has_logits_) (void)file.elements<Half>(logits_name(layer), logits_shape);
  }
  has_token_ids_ = file.has(kTokenIdsName);
  const std::int64_t ids_shape[] = {num_tokens_};
  if (has_token_ids_) (void)file.elements<std::int32_t>(kTokenIdsName, ids_shape);

  if (num_tokens_ > 0) sequence_starts_ = {0};
  if (!file.has("sequence_starts")) return;
  const std::int64_t any[] = {-1};
  set_sequence_starts(file.elements<std::int64_t>("sequence_starts", any), ErrorCode::kInvalidFile);
}

void Trace::set_sequence_starts(std::span<const std::int64_t> starts, ErrorCode code) {
  const bool ascend = std::ranges::adjacent_find(starts, std::greater_equal{}) == starts.end();
  const bool fit =
      starts.empty() ? num_tokens_ == 0 : starts.front() == 0 && starts.back() < num_tokens_;
  if (!ascend || !fit) {
    throw Error(code, fmt::format("{}: sequence_starts must ascend from 0 and stay below {}, the "
                                  "number of tokens",
                                  path(), num_tokens_));
  }
  sequence_starts_.assign(starts.begin(), starts.end());
}

Trace::Trace(TraceHeader header, std::span<const MatrixView<const ExpertId>> topk_idx,
             std::span<const std::int64_t> sequence_starts, std::string name,
             std::span<const TokenId> token_ids)
    : storage_(new Storage{.name = std::move(name), .file = std::nullopt}),
      header_(std::move(header)) {
  try {
    check_header(header_, path());
    C2R_REQUIRE(std::ssize(topk_idx) == header_.num_layers(), kInvalidFile,
                "{}: there are arrays of {} layers, but the header has {}", path(), topk_idx.size(),
                header_.num_layers());
    num_tokens_ = topk_idx[0].rows();
    for (std::size_t layer = 0; layer < topk_idx.size(); ++layer) {
      const auto& ids = topk_idx[layer];
      C2R_REQUIRE(ids.rows() == num_tokens_ && ids.cols() == header_.top_k, kInvalidFile,
                  "{}: layer {} has an array of {} x {}, but must have {} x {}, tokens and top_k",
                  path(), layer, ids.rows(), ids.cols(), num_tokens_, header_.top_k);
      check_appended(ids, header_.num_experts, fmt::format("{}, layer {}", path(), layer));
      const std::span<const ExpertId> all(ids.data(), std::size_t(ids.rows() * ids.cols()));
      if (is_stored_in_u8(header_.num_experts)) {
        storage_->u8.push_back(stored_ids<std::uint8_t>(all));
      } else {
        storage_->u16.push_back(stored_ids<std::uint16_t>(all));
      }
    }
    set_token_ids(token_ids);
  } catch (const Error& e) {
    C2R_THROW(kInvalidArgument, "{}", e.what());
  }
  if (num_tokens_ > 0) sequence_starts_ = {0};
  if (!sequence_starts.empty()) {
    set_sequence_starts(sequence_starts, ErrorCode::kInvalidArgument);
  }
}

void Trace::set_token_ids(std::span<const TokenId> ids) {
  if (ids.empty()) return;
  C2R_REQUIRE(std::ssize(ids) == num_tokens_, kInvalidFile,
              "{}: there are {} token ids, but {} tokens", path(), ids.size(), num_tokens_);
  check_token_ids(ids, path(), 0);
  storage_->token_ids.assign(ids.begin(), ids.end());
  has_token_ids_ = true;
}

Trace::Trace(Trace&&) noexcept = default;
Trace& Trace::operator=(Trace&&) noexcept = default;
Trace::~Trace() = default;

const std::string& Trace::path() const {
  return storage_->name;
}

bool Trace::is_in_memory() const {
  return !storage_->file;
}

void Trace::check_tokens(std::int64_t layer, std::int64_t begin, std::int64_t end) const {
  C2R_REQUIRE(0 <= layer && layer < header_.num_layers(), kInvalidArgument,
              "{}: layer {} is not in [0, {}]", path(), layer, header_.num_layers() - 1);
  C2R_REQUIRE(0 <= begin && begin <= end && end <= num_tokens_, kInvalidArgument,
              "{}: tokens [{}, {}) are not a range of its {} tokens", path(), begin, end,
              num_tokens_);
}

StoredTopkIdx Trace::stored_topk_idx(std::int64_t layer) const {
  check_tokens(layer, 0, 0);
  if (is_in_memory()) {
    const auto l = static_cast<std::size_t>(layer);
    if (is_stored_in_u8(header_.num_experts)) return {.u8 = storage_->u8[l], .u16 = {}};
    return {.u8 = {}, .u16 = storage_->u16[l]};
  }
  const std::int64_t shape[] = {num_tokens_, header_.top_k};
  const SafetensorsFile& file = *storage_->file;
  if (is_stored_in_u8(header_.num_experts)) {
    return {.u8 = file.elements<std::uint8_t>(idx_name(layer), shape), .u16 = {}};
  }
  return {.u8 = {}, .u16 = file.elements<std::uint16_t>(idx_name(layer), shape)};
}

Matrix<ExpertId> Trace::topk_idx(std::int64_t layer, std::int64_t begin, std::int64_t end) const {
  check_tokens(layer, begin, end);
  Matrix<ExpertId> out(end - begin, header_.top_k);
  const auto first = static_cast<std::size_t>(begin * header_.top_k);
  const StoredTopkIdx stored = stored_topk_idx(layer);
  if (is_stored_in_u8(header_.num_experts)) {
    decode(stored.u8.subspan(first), out.all());
  } else {
    decode(stored.u16.subspan(first), out.all());
  }
  check_stored(out, header_.num_experts, path(), layer, begin);
  return out;
}

Matrix<float> Trace::topk_weights(std::int64_t layer, std::int64_t begin, std::int64_t end) const {
  C2R_REQUIRE(has_weights_, kInvalidArgument, "{}: holds no weights", path());
  check_tokens(layer, begin, end);
  const std::int64_t shape[] = {num_tokens_, header_.top_k};
  const auto halves = storage_->file->elements<Half>(weights_name(layer), shape);
  return read_halves(halves, begin, end - begin, header_.top_k);
}

Matrix<float> Trace::logits(std::int64_t layer, std::int64_t begin, std::int64_t end) const {
  C2R_REQUIRE(has_logits_, kInvalidArgument, "{}: holds no logits", path());
  check_tokens(layer, begin, end);
  const std::int64_t shape[] = {num_tokens_, header_.num_experts};
  const auto halves = storage_->file->elements<Half>(logits_name(layer), shape);
  Matrix<float> out = read_halves(halves, begin, end - begin, header_.num_experts);
  const auto bad = std::ranges::find_if_not(out.all(), [](float x) { return std::isfinite(x); });
  const std::int64_t at = bad - out.all().begin();
  C2R_REQUIRE(bad == out.all().end(), kInvalidFile,
              "{}: layer {}, token {}: the logit of expert {} is {}, but must be finite", path(),
              layer, begin + at / header_.num_experts, at % header_.num_experts, *bad);
  return out;
}

std::vector<TokenId> Trace::token_ids(std::int64_t begin, std::int64_t end) const {
  C2R_REQUIRE(has_token_ids_, kInvalidArgument, "{}: holds no token ids", path());
  check_tokens(0, begin, end);
  const auto first = static_cast<std::size_t>(begin), count = static_cast<std::size_t>(end - begin);
  if (is_in_memory()) {
    const auto part = std::span(storage_->token_ids).subspan(first, count);
    return {part.begin(), part.end()};
  }
  const std::int64_t shape[] = {num_tokens_};
  const auto stored = storage_->file->elements<std::int32_t>(kTokenIdsName, shape);
  std::vector<TokenId> ids;
  ids.reserve(count);
  for (const std::int32_t id : stored.subspan(first, count)) ids.push_back(TokenId{id});
  check_token_ids(ids, path(), begin);
  return ids;
}

}  // namespace c2r
