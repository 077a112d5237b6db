// Routing traces: which experts each token chose in each MoE layer, on disk.
//
// A trace is a safetensors file (docs/formats.md). For MoE layer i, counted from 0:
//   layers.{i}.topk_idx      U8 or U16 [num_tokens, top_k]; the type's largest value = no expert
//   layers.{i}.topk_weights  F16 [num_tokens, top_k], optional, for all layers or none
//   layers.{i}.logits        F16 [num_tokens, num_experts], optional, for all layers or none; the
//                            file then has version 2
//   sequence_starts          I64 [num_sequences], optional: row of each sequence's first token
//   token_ids                I32 [num_tokens], optional: what the tokens are, at least 0
// and the metadata of TraceHeader. Ids are logical: an expert keeps its id wherever it is placed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/core/error.h"
#include "c2r/core/ids.h"
#include "c2r/core/matrix.h"

namespace c2r {

struct TraceHeader {
  std::string model;  // free text: which model the trace was recorded from; may be empty
  std::int32_t num_experts = 0, top_k = 0;
  // The model's own index of each MoE layer: {1, 2, 3} for a model whose layer 0 is dense.
  std::vector<std::int32_t> layer_indices;

  std::int64_t num_layers() const { return std::ssize(layer_indices); }
  bool operator==(const TraceHeader&) const = default;
};

/// Checks the counts against kMaxExperts, kMaxTopK and kMaxLayers and that layer_indices ascend.
/// @param place what the header is of, for messages
/// @throws Error(kInvalidFile)
void check_header(const TraceHeader& header, std::string_view place);

/// The ids of one layer as they lie in the file, unchecked. One of the spans is empty, the other
/// holds [num_tokens, top_k] ids.
struct StoredTopkIdx {
  std::span<const std::uint8_t> u8;
  std::span<const std::uint16_t> u16;
};

/// An open trace. The ids are mapped from the file, not read: memory does not grow with the trace.
/// Opening checks names, shapes and metadata; ids are checked where they are read. Threads may
/// share one.
class Trace {
 public:
  /// @throws Error(kInvalidFile) if it is not a trace, naming what is wrong
  explicit Trace(const std::filesystem::path& path);

  /// A trace in memory, which holds a copy of the arrays in the type that a file would have.
  /// @param topk_idx one array for each layer of the header: [num_tokens, top_k]; kNoExpert = none
  /// @param sequence_starts row of each sequence's first token, ascending from 0; empty: all tokens
  ///        are one sequence
  /// @param name what path() returns: plans and messages call the tokens so
  /// @param token_ids what the tokens are, [num_tokens]; empty: not known
  /// @throws Error(kInvalidArgument) if the header is not valid, shapes differ from it, a choice is
  ///         out of range or names an expert twice in a token, sequence_starts do not ascend, or
  ///         token ids are of another number or negative
  ///
  /// Cost: one pass over the arrays; memory of 1 byte a choice, 2 with more than 255 experts, and 4
  /// a token id.
  Trace(TraceHeader header, std::span<const MatrixView<const ExpertId>> topk_idx,
        std::span<const std::int64_t> sequence_starts = {}, std::string name = "memory",
        std::span<const TokenId> token_ids = {});

  Trace(Trace&&) noexcept;
  Trace& operator=(Trace&&) noexcept;
  ~Trace();

  /// The file, or the name of a trace in memory.
  const std::string& path() const;
  bool is_in_memory() const;
  const TraceHeader& header() const { return header_; }
  std::int64_t num_tokens() const { return num_tokens_; }
  bool has_weights() const { return has_weights_; }
  bool has_logits() const { return has_logits_; }
  bool has_token_ids() const { return has_token_ids_; }
  /// @returns the row of each sequence's first token; {0} if the file does not say, {} without
  /// tokens
  std::span<const std::int64_t> sequence_starts() const { return sequence_starts_; }

  /// The ids of a layer as they are stored, unchecked.
  /// @throws Error(kInvalidArgument) if there is no such layer
  StoredTopkIdx stored_topk_idx(std::int64_t layer) const;

  /// The experts of tokens [begin, end) in `layer`, as [end - begin, top_k].
  /// @throws Error(kInvalidArgument) if there is no such layer or token
  /// @throws Error(kInvalidFile), naming file, layer and token, if an id is not below num_experts
  ///         or a token names an expert twice
  Matrix<ExpertId> topk_idx(std::int64_t layer, std::int64_t begin, std::int64_t end) const;

  /// The weights of the same choices.
  /// @throws Error(kInvalidArgument) if there is no such layer or token, or unless has_weights()
  Matrix<float> topk_weights(std::int64_t layer, std::int64_t begin, std::int64_t end) const;

  /// The router's logits of the same tokens, as [end - begin, num_experts].
  /// @throws Error(kInvalidArgument) if there is no such layer or token, or unless has_logits()
  /// @throws Error(kInvalidFile), naming file, layer, token and expert, if one is not finite
  Matrix<float> logits(std::int64_t layer, std::int64_t begin, std::int64_t end) const;

  /// What tokens [begin, end) are, in the vocabulary of the model.
  /// @throws Error(kInvalidArgument) if there is no such token, or unless has_token_ids()
  /// @throws Error(kInvalidFile), naming file and token, if an id is negative
  std::vector<TokenId> token_ids(std::int64_t begin, std::int64_t end) const;

 private:
  void set_token_ids(std::span<const TokenId> ids);
  void check_tokens(std::int64_t layer, std::int64_t begin, std::int64_t end) const;
  void set_sequence_starts(std::span<const std::int64_t> starts, ErrorCode code);

  struct Storage;
  std::unique_ptr<Storage> storage_;
  TraceHeader header_;
  std::int64_t num_tokens_ = 0;
  bool has_weights_ = false, has_logits_ = false, has_token_ids_ = false;
  std::vector<std::int64_t> sequence_starts_;
};

/// Writes a trace as its tokens become known, in memory that does not grow with their number:
/// tokens go to a temporary file without a name in the folder of `path`, and finish() writes the
/// trace from it. Without finish() nothing is left behind.
class TraceWriter {
 public:
  /// @throws Error(kInvalidFile) if the header is not valid or the folder cannot be written to
  TraceWriter(const std::filesystem::path& path, TraceHeader header, bool has_weights);
  TraceWriter(const TraceWriter&) = delete;
  TraceWriter& operator=(const TraceWriter&) = delete;
  ~TraceWriter();

  /// Appends tokens to one layer; layers may advance at different times. A call that throws
  /// because of its arguments appends nothing.
  /// @param topk_idx [n, top_k], row-major; kNoExpert = none
  /// @param topk_weights [n, top_k], rounded to f16; empty unless `has_weights`
  /// @param place where the ids come from, for messages, which count tokens from 0 in this call
  /// @throws Error(kInvalidArgument) if there is no such layer or the sizes do not fit
  /// @throws Error(kInvalidFile) if an id is out of range, a token names an expert twice, or the
  ///         disk is full
  void append(std::int64_t layer, std::span<const ExpertId> topk_idx,
              std::span<const float> topk_weights, std::string_view place);

  /// Appends the router's logits of tokens of one layer. A trace has them of all its tokens or of
  /// none.
  /// @param logits [n, num_experts], row-major, rounded to f16
  /// @param place as in append()
  /// @throws Error(kInvalidArgument) if there is no such layer or the size does not fit
  /// @throws Error(kInvalidFile) if f16 cannot hold a logit, or the disk is full
  void append_logits(std::int64_t layer, std::span<const float> logits, std::string_view place);

  /// Appends what tokens are. A trace has the ids of all its tokens or of none.
  /// @param place as in append()
  /// @throws Error(kInvalidFile) if an id is negative, or the disk is full
  void append_token_ids(std::span<const TokenId> ids, std::string_view place);

  /// @returns the tokens that were appended to layer 0 so far
  std::int64_t num_tokens() const;

  /// Says that a new sequence starts with the next token that is appended to layer 0.
  void start_sequence();

  /// Joins the layers and makes the file visible.
  /// @throws Error(kInvalidFile) if the layers have different numbers of tokens, or logits or token
  ///         ids of other numbers, or on a full disk
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace c2r
