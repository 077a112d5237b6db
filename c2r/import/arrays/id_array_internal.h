// Arrays of expert ids with three axes, and where they come from: .npy and .npz files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/io/npy.h"

namespace c2r {

/// The ids of an input, which own their elements.
struct IdElements {
  std::string place;                  // of the array, for messages
  NpyFile array;                      // integers or floats, [.., .., ..] as `axes` says
  std::string axes;                   // empty = as the caller says
  std::vector<std::int32_t> layers;   // the model's index of each layer; empty = not known
  std::vector<std::string> not_read;  // the names of other arrays
};

/// Reads a .npy file, or a .npz file with one array of three axes or with an array of integers
/// [num_tokens, top_k] for each layer, whose name has the layer's number, such as "L3_idx".
/// @throws Error(kInvalidFile) as NpyFile and ZipArchive, and for other arrays
IdElements read_id_elements(const std::filesystem::path& path);

/// Ids by token, layer and place among the token's choices. The array must outlive this object.
class IdArray {
 public:
  /// @param axes what the axes of the array are, outermost first: T, L and K in some order
  /// @throws Error(kInvalidFile) unless the array is integers or floats of three axes
  IdArray(const NpyView& array, std::string_view place, std::string_view axes);

  std::int64_t num_tokens() const { return extents_[0]; }
  std::int64_t num_layers() const { return extents_[1]; }
  std::int64_t width() const { return extents_[2]; }

  /// @returns the position in the array, counted row-major
  std::int64_t position(std::int64_t token, std::int64_t layer, std::int64_t k) const {
    return token * strides_[0] + layer * strides_[1] + k * strides_[2];
  }

  /// @returns the id at a position
  /// @throws Error(kInvalidFile) if it is no whole number
  std::int64_t at(std::int64_t position) const;

 private:
  const NpyView& array_;
  std::string place_;
  bool is_integer_ = true;
  std::int64_t extents_[3] = {}, strides_[3] = {};  // of tokens, layers and choices
};

/// @returns the only order of axes in which the array can be ids of more tokens than layers, of
///          distinct experts; nothing if it is TLK, or if there is none or more than one
std::optional<std::string> likely_axes(const NpyView& array, std::string_view place,
                                       std::int32_t num_experts);

}  // namespace c2r
