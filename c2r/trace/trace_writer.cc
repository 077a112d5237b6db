// Writes a trace layer by layer, through a temporary file.
#include <algorithm>
#include <utility>

#include "c2r/core/error.h"
#include "c2r/io/safetensors.h"
#include "c2r/trace/spill_file_internal.h"
#include "c2r/trace/trace.h"
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

bool is_infinite_or_nan(Half half) {
  return (static_cast<std::uint16_t>(half) & 0x7c00u) == 0x7c00u;
}

}  // namespace

struct TraceWriter::State {
  std::filesystem::path path;
  TraceHeader header;
  bool has_weights = false;
  SpillFile spill;
  std::vector<SpilledTensor> idx = {}, weights = {};  // [num_layers]; weights only if has_weights
  std::vector<SpilledTensor> logits = {};             // [num_layers]
  std::vector<std::int64_t> num_tokens = {};          // [num_layers]
  std::vector<std::int64_t> num_logits = {};          // [num_layers], tokens that have them
  SpilledTensor token_ids = {};
  std::int64_t num_token_ids = 0;

  bool has_logits() const {
    return std::ranges::any_of(num_logits, [](std::int64_t n) { return n > 0; });
  }
  // Refuses what is there of some tokens only.
  void check_is_complete() const {
    const std::int64_t num_of_first = num_tokens[0];
    for (std::size_t layer = 0; layer < num_tokens.size(); ++layer) {
      C2R_REQUIRE(num_tokens[layer] == num_of_first, kInvalidFile,
                  "{}: layer {} has {} tokens, but layer 0 has {}", path.string(), layer,
                  num_tokens[layer], num_of_first);
      C2R_REQUIRE(!has_logits() || num_logits[layer] == num_of_first, kInvalidFile,
                  "{}: layer {} has logits of {} tokens, but there are {} tokens", path.string(),
                  layer, num_logits[layer], num_of_first);
    }
    C2R_REQUIRE(num_token_ids == 0 || num_token_ids == num_of_first, kInvalidFile,
                "{}: there are {} token ids, but {} tokens", path.string(), num_token_ids,
                num_of_first);
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

void TraceWriter::append_token_ids(std::span<const TokenId> ids, std::string_view place) {
  check_token_ids(ids, place, 0);
  state_->token_ids.append(std::as_bytes(ids), state_->spill);
  state_->num_token_ids += std::ssize(ids);
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
  state.check_is_complete();
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
  if (state.num_token_ids > 0) {
    tensors.push_back({kTokenIdsName, Dtype::kI32, {num_tokens}, [&state](AtomicFile& file) {
                         state.token_ids.copy_to(file, state.spill);
                       }});
  }
  const auto version = state.has_logits() ? kTraceVersionWithLogits : kFirstVersion;
  write_safetensors(state.path, std::move(tensors),
                    trace_metadata(state.header, kTraceFormat, version));
}

}  // namespace c2r
