// The tensors of a checkpoint folder, from model.safetensors or else, as in transformers, from the
// shards that model.safetensors.index.json names. Files are mapped; pages are read when they are
// used.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/core/element.h"
#include "c2r/io/safetensors.h"

namespace c2r {

/// @returns whether the folder has weights, in a format that c2r reads or in another
bool has_weight_files(const std::filesystem::path& folder);

class Checkpoint {
 public:
  /// Opens every shard and checks its header.
  /// @throws Error(kInvalidFile) if there is no checkpoint, a shard is broken or missing, a tensor
  ///         is in two shards, or a shard lacks a tensor that the index says it has
  explicit Checkpoint(const std::filesystem::path& folder);

  /// @returns the tensor `name`, [num_outputs, num_inputs], of f32, f16 or bf16; valid while this
  ///          object lives
  /// @throws Error(kInvalidFile), naming file, tensor and what is wrong
  RowsView matrix(const std::string& name, std::int64_t num_outputs, std::int64_t num_inputs);

  /// @returns the tensor `name`, [size], converted to floats
  /// @throws as matrix()
  std::vector<float> vector(const std::string& name, std::int64_t size);

  /// Checks that every tensor was asked for, except those whose names end in one of `unused`.
  /// @throws Error(kInvalidFile), naming the first one
  void check_all_used(std::span<const std::string_view> unused) const;

  /// @returns a tensor as it is stored
  /// @throws Error(kInvalidFile) if there is none
  const TensorView& tensor(std::string_view name) const;

  /// Checks that all weights that are floats are finite, to say why a result is not.
  /// @throws Error(kInvalidFile), naming the file, the tensor and the first value that is not
  /// Cost: reads all weights.
  void check_finite() const;

  /// @returns the bytes of all tensors, used or not
  std::int64_t num_bytes() const;
  const std::vector<SafetensorsFile>& shards() const { return shards_; }
  const std::string& folder() const { return folder_; }
  bool has(std::string_view name) const { return shard_of_.contains(name); }
  /// @returns one line about files of the folder that are not used; empty if there are none. If
  ///          these are a complete model, too, it says whether that is another one, by the names,
  ///          types and shapes of the tensors and some bytes of each.
  const std::string& note() const { return note_; }

 private:
  struct Stored {
    std::span<const std::byte> bytes;
    ElementType type;
  };
  void read_index(const std::filesystem::path& folder, const std::filesystem::path& index);
  void collect();
  const SafetensorsFile& shard_with(std::string_view name) const;
  Stored stored(const std::string& name, std::span<const std::int64_t> shape);

  std::string folder_, note_;
  std::vector<SafetensorsFile> shards_;
  std::map<std::string, std::size_t, std::less<>> shard_of_;  // tensor -> position in shards_
  std::set<std::string, std::less<>> used_;
};

}  // namespace c2r
