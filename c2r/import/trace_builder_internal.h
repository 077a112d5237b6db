// What the readers of routing decisions share: the trace under construction, and ids from JSON.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/import/import.h"
#include "c2r/io/json.h"

namespace c2r {

/// Where an id is in an input; made into text only for a message.
struct TokenPlace {
  std::string_view file;
  std::int64_t layer = 0, token = 0;

  std::string text() const;  // "FILE, layer 3, token 7"
};

/// The choices of consecutive tokens of one sequence.
struct SequenceChoices {
  std::vector<std::int32_t> layer_indices;
  std::vector<std::vector<ExpertId>> topk_idx;  // [num_layers] of [num_tokens, top_k]
};

/// Opens the trace when the first input tells its shape, and holds the others to that. The request
/// must outlive this object.
class TraceBuilder {
 public:
  explicit TraceBuilder(const ImportRequest& request) : request_(request) {}

  const ImportRequest& request() const { return request_; }

  /// The layer indices of an input that has `num_layers` layers without saying which.
  std::vector<std::int32_t> layer_indices_of(std::size_t num_layers, std::string_view place) const;

  /// Says that the input at `place` has these layers.
  /// @throws Error(kInvalidFile) if an earlier one, or the request, had others
  void open(const std::vector<std::int32_t>& layer_indices, std::string_view place,
            bool has_weights = false);

  /// Appends the ids in a JSON array to `out`. The first one sets top_k.
  /// @param min_id 0, or -1 if that marks no expert
  void append_ids(const Json& ids, std::int32_t min_id, const TokenPlace& place,
                  std::vector<ExpertId>& out);

  /// Says that the inputs have this many experts a token.
  /// @throws Error(kInvalidFile) if an earlier one, or the request, had others, or out of range
  void set_top_k(std::int64_t top_k, std::string_view place);
  std::int32_t top_k() const { return top_k_; }

  /// Appends a whole sequence, unless it has no token.
  void add_sequence(const SequenceChoices& sequence, std::string_view place);

  /// The same layer after layer: starts a sequence of at least one token, to which the ids of each
  /// layer, [num_tokens, top_k], have to be appended in order.
  void start_sequence(const std::vector<std::int32_t>& layer_indices, std::string_view place);
  void append_layer(std::size_t layer, std::span<const ExpertId> topk_idx, std::string_view place);

  /// The trace, once open() was called.
  TraceWriter& writer() { return *writer_; }

  /// Completes the trace and reads back what it holds.
  /// @throws Error(kInvalidFile) if no input has a token
  ImportResult finish();

 private:
  const ImportRequest& request_;
  std::int32_t top_k_ = 0;  // 0 until an input has said it
  std::vector<std::int32_t> layer_indices_;
  std::unique_ptr<TraceWriter> writer_;
};

}  // namespace c2r
