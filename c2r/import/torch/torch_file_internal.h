// Files of torch.save(): plain containers of numbers, strings and tensors, read without executing
// anything that the file says.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/import/torch/pickle_internal.h"
#include "c2r/import/torch/zip_archive_internal.h"
#include "c2r/io/file.h"
#include "c2r/io/npy.h"

namespace c2r::torch {

/// The elements of a tensor, row-major. Those of a tensor that is not contiguous are a copy.
class TensorData {
 public:
  /// Elements of a mapped file, or a copy if `owned` is not empty.
  TensorData(NpyView view, std::vector<std::byte> owned)
      : owned_(std::move(owned)), view_(std::move(view)) {
    if (!owned_.empty()) view_.bytes = owned_;
  }
  TensorData(TensorData&&) noexcept = default;
  TensorData& operator=(TensorData&&) noexcept = default;

  /// Valid while this object and the file live.
  const NpyView& array() const { return view_; }

 private:
  std::vector<std::byte> owned_;
  NpyView view_;
};

/// An open file, mapped. Values, strings and tensors are valid while it lives.
///
/// Every function throws Error(kInvalidFile) if the value is not of the kind asked for; `what`
/// names the value in the message.
class TorchFile {
 public:
  /// Reads the archive's directory and the pickle, no tensor.
  /// @throws Error(kInvalidFile) as ZipArchive and read_pickle()
  /// @throws Error(kUnsupported) for what torch wrote before version 1.6 and on big-endian machines
  explicit TorchFile(const std::filesystem::path& path);

  const std::string& path() const { return path_; }
  std::int64_t num_bytes() const { return std::ssize(file_.bytes()); }
  const Value& root() const { return objects_.root; }

  /// The values of a list or a tuple.
  std::span<const Value> items(const Value& list, std::string_view what) const;

  /// The value of a dict's key; null if there is none or it is None.
  const Value* find(const Value& dict, std::string_view key, std::string_view what) const;
  /// @throws Error(kInvalidFile) besides, if there is none
  const Value& at(const Value& dict, std::string_view key, std::string_view what) const;
  /// The keys of a dict that are strings, in the order of the file.
  std::vector<std::string_view> keys(const Value& dict, std::string_view what) const;

  std::int64_t integer(const Value& value, std::string_view what) const;
  std::string_view string(const Value& value, std::string_view what) const;

  /// @throws Error(kInvalidFile) besides, if the tensor reaches out of its storage, or the storage
  ///         out of the archive, or the tensor has more elements than its storage: so what is read
  ///         of a file is bounded by its size
  /// Cost: nothing for a contiguous tensor, else a copy.
  TensorData tensor(const Value& value, std::string_view what) const;

 private:
  std::span<const std::byte> storage_of(const Tensor& tensor, const std::string& where) const;
  void require(const Value& value, Kind kind, std::string_view what) const;

  std::string path_;
  MappedFile file_;
  ZipArchive zip_;
  std::string prefix_;  // of the entries' names: the name that the file had, and a slash
  Objects objects_;
};

/// @returns whether a file begins like a zip archive, which every file of torch.save() does
bool is_zip(const std::filesystem::path& path);

}  // namespace c2r::torch
