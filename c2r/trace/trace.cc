// The trace file: checked when it is opened and where it is read, and written layer by layer.
#include "c2r/trace/trace.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "c2r/core/error.h"
#include "c2r/io/safetensors.h"
#include "c2r/routing/routing.h"
#include "c2r/trace/spill_file_internal.h"
#include "c2r/trace/trace_metadata.h"

namespace c2r {
namespace {

// 255 is the mark for "none", so 8 bits hold the ids of at most 255 experts.
bool is_stored_in_u8(std::int32_t num_experts) {
  return num_experts <= 255;
}

std::string idx_name(std::int64_t layer) {
  return fmt::format("layers.{}.topk_idx", layer);
}
std::string weights_name(std::int64_t layer) {
  return fmt::format("layers.{}.topk_weights", layer);
}

std::string logits_name(std::int64_t layer) {
  return fmt::format("layers.{}.logits", layer);
}

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

// Refuses what is to be written; `place` says where the caller has it from.
void check_appended(MatrixView<const ExpertId> topk_idx, std::int32_t num_experts,
                    std::string_view place) {
  const auto invalid = find_invalid_choice(topk_idx, num_experts);
  if (!invalid) return;
  C2R_REQUIRE(invalid->first_column, kInvalidFile,
              "{}, token {}: expert {} is not in [0, {}], the range of {} experts", place,
              invalid->token, invalid->expert, num_experts - 1, num_experts);
  C2R_THROW(kInvalidFile, "{}, token {}: names expert {} twice", place, invalid->token,
            invalid->expert);
}

template <class Stored>
std::vector<Stored> stored_ids(std::span<const ExpertId> ids) {
  std::vector<Stored> converted(ids.size());
  // kNoExpert, -1, becomes the type's largest value.
  std::ranges::transform(ids, converted.begin(),
                         [](ExpertId id) { return static_cast<Stored>(id); });
  return converted;
}

template <class Stored>
void append_ids(std::span<const ExpertId> ids, SpilledTensor& tensor, SpillFile& spill) {
  const auto converted = stored_ids<Stored>(ids);
  tensor.append(std::as_bytes(std::span(converted)), spill);
}

std::vector<Half> halves_of(std::span<const float> values) {
  std::vector<Half> halves(values.size());
  from_f32(values, ElementType::kF16, std::as_writable_bytes(std::span(halves)).data());
  return halves;
}

void append_halves(std::span<const Half> halves, SpilledTensor& tensor, SpillFile& spill) {
  tensor.append(std::as_bytes(halves), spill);
}

// @returns rows [first_row, first_row + rows) of a tensor of f16 [.., cols]
Matrix<float> read_halves(std::span<const Half> tensor, std::int64_t first_row, std::int64_t rows,
                          std::int64_t cols) {
  Matrix<float> out(rows, cols);
  const auto part = tensor.subspan(static_cast<std::size_t>(first_row * cols), out.all().size());
  to_f32(std::as_bytes(part).data(), ElementType::kF16, out.all());
  return out;
}

bool is_infinite_or_nan(Half half) {
  return (static_cast<std::uint16_t>(half) & 0x7c00u) == 0x7c00u;
}

}  // namespace

struct Trace::Storage {
  std::string name;
  std::optional<SafetensorsFile> file;
  // Without a file: the ids of each layer in one of the two types. [num_layers][num_tokens x top_k]
  std::vector<std::vector<std::uint8_t>> u8 = {};
  std::vector<std::vector<std::uint16_t>> u16 = {};
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
             std::span<const std::int64_t> sequence_starts, std::string name)
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
  } catch (const Error& e) {
    C2R_THROW(kInvalidArgument, "{}", e.what());
  }
  if (num_tokens_ > 0) sequence_starts_ = {0};
  if (!sequence_starts.empty()) {
    set_sequence_starts(sequence_starts, ErrorCode::kInvalidArgument);
  }
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

struct TraceWriter::State {
  std::filesystem::path path;
  TraceHeader header;
  bool has_weights = false;
  SpillFile spill;
  std::vector<SpilledTensor> idx = {}, weights = {};  // [num_layers]; weights only if has_weights
  std::vector<SpilledTensor> logits = {};             // [num_layers]
  std::vector<std::int64_t> num_tokens = {};          // [num_layers]
  std::vector<std::int64_t> num_logits = {};          // [num_layers], tokens that have them

  bool has_logits() const {
    return std::ranges::any_of(num_logits, [](std::int64_t n) { return n > 0; });
  }
  void check_layer(std::int64_t layer, std::string_view place) const {
    C2R_REQUIRE(0 <= layer && layer < header.num_layers(), kInvalidArgument,
                "{}: layer {} is not in [0, {}], the layers of the trace", place, layer,
                header.num_layers() - 1);
  }
  std::vector<std::int64_t> sequence_starts = {};
};

TraceWriter::TraceWriter(const std::filesystem::path& path, TraceHeader header, bool has_weights)
    : state_(new State{.path = path,
                       .header = std::move(header),
                       .has_weights = has_weights,
                       .spill = SpillFile(path)}) {
  check_header(state_->header, path.string());
  const auto num_layers = static_cast<std::size_t>(state_->header.num_layers());
  state_->idx.resize(num_layers);
  if (has_weights) state_->weights.resize(num_layers);
  state_->logits.resize(num_layers);
  state_->num_tokens.resize(num_layers);
  state_->num_logits.resize(num_layers);
}

TraceWriter::~TraceWriter() = default;

void TraceWriter::append(std::int64_t layer, std::span<const ExpertId> topk_idx,
                         std::span<const float> topk_weights, std::string_view place) {
  const TraceHeader& header = state_->header;
  const std::int64_t num_choices = std::ssize(topk_idx), top_k = header.top_k;
  state_->check_layer(layer, place);
  C2R_REQUIRE(num_choices % top_k == 0, kInvalidArgument,
              "{}: {} choices do not divide into tokens of top-{}", place, num_choices, top_k);
  const std::int64_t num_weights = state_->has_weights ? num_choices : 0;
  C2R_REQUIRE(std::ssize(topk_weights) == num_weights, kInvalidArgument,
              "{}: there are {} weights of {} choices, but the trace needs {}", place,
              topk_weights.size(), num_choices, num_weights);
  check_appended({topk_idx.data(), num_choices / top_k, top_k}, header.num_experts, place);
  const auto at = static_cast<std::size_t>(layer);
  if (is_stored_in_u8(header.num_experts)) {
    append_ids<std::uint8_t>(topk_idx, state_->idx[at], state_->spill);
  } else {
    append_ids<std::uint16_t>(topk_idx, state_->idx[at], state_->spill);
  }
  if (state_->has_weights) {
    append_halves(halves_of(topk_weights), state_->weights[at], state_->spill);
  }
  state_->num_tokens[at] += num_choices / top_k;
}

void TraceWriter::append_logits(std::int64_t layer, std::span<const float> logits,
                                std::string_view place) {
  const std::int64_t num_experts = state_->header.num_experts;
  state_->check_layer(layer, place);
  C2R_REQUIRE(std::ssize(logits) % num_experts == 0, kInvalidArgument,
              "{}: {} logits do not divide into tokens of {} experts", place, logits.size(),
              num_experts);
  const auto halves = halves_of(logits);
  const std::int64_t bad = std::ranges::find_if(halves, is_infinite_or_nan) - halves.begin();
  C2R_REQUIRE(bad == std::ssize(halves), kInvalidFile,
              "{}, token {}: the logit of expert {} is {}, but must be a number that f16 can hold",
              place, bad / num_experts, bad % num_experts, logits[static_cast<std::size_t>(bad)]);
  const auto at = static_cast<std::size_t>(layer);
  append_halves(halves, state_->logits[at], state_->spill);
  state_->num_logits[at] += std::ssize(logits) / num_experts;
}

std::int64_t TraceWriter::num_tokens() const {
  return state_->num_tokens[0];
}

void TraceWriter::start_sequence() {
  auto& starts = state_->sequence_starts;
  const std::int64_t next = state_->num_tokens[0];
  if (starts.empty() || starts.back() < next) starts.push_back(next);
}

void TraceWriter::finish() {
  State& state = *state_;
  const std::int64_t num_tokens = state.num_tokens[0];
  for (std::size_t layer = 0; layer < state.num_tokens.size(); ++layer) {
    C2R_REQUIRE(state.num_tokens[layer] == num_tokens, kInvalidFile,
                "{}: layer {} has {} tokens, but layer 0 has {}", state.path.string(), layer,
                state.num_tokens[layer], num_tokens);
    C2R_REQUIRE(!state.has_logits() || state.num_logits[layer] == num_tokens, kInvalidFile,
                "{}: layer {} has logits of {} tokens, but there are {} tokens",
                state.path.string(), layer, state.num_logits[layer], num_tokens);
  }
  auto& starts = state.sequence_starts;
  if (num_tokens > 0 && (starts.empty() || starts.front() != 0)) starts.insert(starts.begin(), 0);
  if (!starts.empty() && starts.back() == num_tokens) starts.pop_back();  // an empty sequence

  const bool u8 = is_stored_in_u8(state.header.num_experts);
  std::vector<TensorToWrite> tensors;
  tensors.push_back(tensor_of<std::int64_t>("sequence_starts", {std::ssize(starts)}, starts));
  for (std::size_t layer = 0; layer < state.idx.size(); ++layer) {
    const std::vector<std::int64_t> shape = {num_tokens, state.header.top_k};
    const auto spilled = [&](std::string name, Dtype dtype, const SpilledTensor& tensor) {
      tensors.push_back({std::move(name), dtype, shape, [&state, &tensor](AtomicFile& file) {
                           tensor.copy_to(file, state.spill);
                         }});
    };
    spilled(idx_name(static_cast<std::int64_t>(layer)), u8 ? Dtype::kU8 : Dtype::kU16,
            state.idx[layer]);
    if (state.has_weights) {
      spilled(weights_name(static_cast<std::int64_t>(layer)), Dtype::kF16, state.weights[layer]);
    }
    if (state.has_logits()) {
      spilled(logits_name(static_cast<std::int64_t>(layer)), Dtype::kF16, state.logits[layer]);
      tensors.back().shape[1] = state.header.num_experts;
    }
  }
  const auto version = state.has_logits() ? kTraceVersionWithLogits : kFirstVersion;
  write_safetensors(state.path, std::move(tensors),
                    trace_metadata(state.header, kTraceFormat, version));
}

}  // namespace c2r
