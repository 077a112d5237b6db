// A file of SGLang's expert distribution recorder in the modes per_pass and per_token.
//
// torch.save() of {"records": [...], "last_physical_to_logical_map": [num_layers, num_slots]}. A
// record is of one forward pass of one rank: {"forward_pass_id", "rank", "gatherer_key",
// "global_physical_count": [num_layers, num_slots]}, and in the mode per_token besides
// {"input_ids", "extend_seq_lens", "forward_mode", "topk_ids_of_layer": [num_layers, num_tokens,
// width]}. The layer axis has all layers of the model; experts are named by their slots; -1 fills
// up rows and marks tokens that the rank did not route.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/core/fingerprint.h"
#include "c2r/import/import.h"
#include "c2r/import/torch/torch_file_internal.h"

namespace c2r::torch {

/// An open file. Its records are those of the model itself; others, of a draft model, are counted.
class RecorderFile {
 public:
  /// @throws Error(kInvalidFile) if it is no such file, or its records are of several ranks
  explicit RecorderFile(const std::filesystem::path& path);

  const TorchFile& file() const { return file_; }
  std::int64_t rank() const { return rank_; }
  std::int64_t num_layers() const { return num_layers_; }
  std::int64_t num_slots() const { return num_slots_; }
  std::int64_t num_experts() const { return num_experts_; }
  /// The expert in a slot, when the file was written.
  /// @pre 0 <= layer < num_layers(), 0 <= slot < num_slots()
  std::int32_t expert(std::int64_t layer, std::int64_t slot) const {
    return expert_of_slot_[static_cast<std::size_t>(layer * num_slots_ + slot)];
  }

  std::int64_t num_records() const { return std::ssize(records_); }
  std::int64_t num_other_records() const { return num_other_records_; }
  const Value& record(std::int64_t i) const { return *records_[static_cast<std::size_t>(i)].value; }
  /// "FILE, record 7"
  std::string place(std::int64_t i) const;
  bool has_tokens() const;  // mode per_token

  /// A tensor of integers of a record, [num_layers, ...].
  /// @throws Error(kInvalidFile) if it is anything else, or if the tensors that were read of this
  ///         file have more bytes than the file: then records share them
  TensorData tensor(std::int64_t i, std::string_view key, std::size_t num_dimensions);

 private:
  struct Record {
    const Value* value;
    std::int64_t number;  // among all records
  };
  void read_map();
  void read_records();

  TorchFile file_;
  std::int64_t rank_ = 0, num_layers_ = 0, num_slots_ = 0, num_experts_ = 0;
  std::int64_t num_other_records_ = 0, num_bytes_read_ = 0;
  std::vector<std::int32_t> expert_of_slot_;  // [num_layers, num_slots]
  std::vector<Record> records_;
};

/// Finds ranks that recorded the same tokens, as all of them do where they share the attention's
/// input: their files must not be added up.
class SameTokens {
 public:
  explicit SameTokens(const ImportRequest& request) : request_(request) {}

  /// @param content of all that a file of `rank` recorded
  /// Adds a note if another file had the same content.
  /// @returns whether that was one of another rank, so that this one is to be left out
  bool seen(std::uint64_t content, std::int64_t rank);

 private:
  const ImportRequest& request_;
  std::map<std::uint64_t, std::int64_t> rank_of_content_;
};

/// The loads in a file of the recorder, whatever its mode, added up over all inputs.
/// @returns [num_hidden_layers][num_experts]
/// @throws Error(kInvalidFile) if files contradict each other or a rank's file is missing
std::vector<std::vector<std::int64_t>> read_recorder_loads(const ImportRequest& request);

}  // namespace c2r::torch
