// Reads ids from .npy and .npz files, and guesses the order of their axes.
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "c2r/core/error.h"
#include "c2r/core/parse_integer.h"
#include "c2r/core/shown.h"
#include "c2r/import/arrays/id_array_internal.h"
#include "c2r/import/torch/torch_file_internal.h"
#include "c2r/import/torch/zip_archive_internal.h"
#include "c2r/io/file.h"
#include "c2r/routing/routing.h"

namespace c2r {
namespace {

constexpr std::string_view kTokensLayersK = "TLK";

// "L3_idx" and "layers.3" -> 3: the first number in the name.
std::optional<std::int32_t> layer_of_array(std::string_view name) {
  const std::size_t begin = name.find_first_of("0123456789");
  if (begin == std::string_view::npos) return std::nullopt;
  const std::size_t end = name.find_first_not_of("0123456789", begin);
  const auto layer = parse_integer(name.substr(begin, end - begin));
  if (!layer || *layer > kMaxLayerIndex) return std::nullopt;
  return static_cast<std::int32_t>(*layer);
}

using NamedArrays = std::map<std::string, NpyFile>;

NamedArrays read_npz(const std::filesystem::path& path) {
  const MappedFile file(path);
  const std::string place = path.string();
  const torch::ZipArchive zip(file.bytes(), place, torch::ZipCompression::kDeflate);
  NamedArrays arrays;
  for (const auto& [name, entry] : zip.entries()) {
    constexpr std::string_view kEnding = ".npy";
    if (!name.ends_with(kEnding)) continue;
    const std::string key(name.substr(0, name.size() - kEnding.size()));
    const std::string where = fmt::format("{}, array {}", place, shown(key));
    arrays.emplace(key, NpyFile(where, torch::content_of(entry, where)));
  }
  return arrays;
}

// A .npy file in memory of I32 [num_layers, num_tokens, top_k].
std::vector<std::byte> npy_of_layers(const std::map<std::int32_t, const NpyFile*>& layers) {
  const auto& shape = layers.begin()->second->array().shape;
  const std::string dict =
      fmt::format("{{'descr': '<i4', 'fortran_order': False, 'shape': ({}, {}, {}), }}\n",
                  layers.size(), shape[0], shape[1]);
  std::string header("\x93NUMPY\x01\x00", 8);
  header += {static_cast<char>(dict.size()), '\0'};
  header += dict;
  std::vector<std::byte> bytes(header.size());
  std::memcpy(bytes.data(), header.data(), header.size());
  for (const auto& [layer, file] : layers) {
    const NpyView& array = file->array();
    C2R_REQUIRE(array.shape == shape, kInvalidFile, "{}: has shape {}, but layer {} has {}",
                file->path(), shape_text(array.shape), layers.begin()->first, shape_text(shape));
    for (std::int64_t i = 0; i < array.num_elements(); ++i) {
      const std::int64_t id = integer_at(array, i);
      C2R_REQUIRE(-1 <= id && id < kMaxExperts, kInvalidFile,
                  "{}: element {} is {}, but ids must be in [-1, {}]", file->path(), i, id,
                  kMaxExperts - 1);
      const auto value = static_cast<std::int32_t>(id);
      const auto* const begin = reinterpret_cast<const std::byte*>(&value);
      bytes.insert(bytes.end(), begin, begin + sizeof(value));
    }
  }
  return bytes;
}

IdElements elements_of_npz(const std::filesystem::path& path) {
  const std::string place = path.string();
  NamedArrays arrays = read_npz(path);
  std::map<std::int32_t, const NpyFile*> layers;
  std::vector<std::string> of_three_axes, not_read;
  for (const auto& [name, file] : arrays) {
    const auto layer = layer_of_array(name);
    if (file.array().shape.size() == 3) {
      of_three_axes.push_back(name);
    } else if (layer && is_integer(file.array().dtype) && file.array().shape.size() == 2) {
      C2R_REQUIRE(layers.emplace(*layer, &file).second, kInvalidFile,
                  "{}: has two arrays of layer {}, the second is {}", place, *layer, shown(name));
    } else {
      not_read.push_back(shown(name));
    }
  }
  C2R_REQUIRE(
      of_three_axes.size() + (layers.empty() ? 0 : 1) == 1, kInvalidFile,
      "{}: has {} arrays of three axes and {} of layers, but must have one array [num_tokens, "
      "num_layers, top_k], or one [num_tokens, top_k] for each layer with its number in the "
      "name",
      place, of_three_axes.size(), layers.size());
  if (!layers.empty()) {
    IdElements elements{.place = place,
                        .array = NpyFile(place, npy_of_layers(layers)),
                        .axes = "LTK",
                        .not_read = std::move(not_read)};
    for (const auto& [layer, file] : layers) elements.layers.push_back(layer);
    return elements;
  }
  NpyFile& found = arrays.at(of_three_axes[0]);
  std::string found_place = found.path();
  return {
      .place = std::move(found_place), .array = std::move(found), .not_read = std::move(not_read)};
}

// Whether the array can be ids in this order of axes: distinct ones in a sample of rows.
bool is_plausible(const IdArray& ids, std::int32_t num_experts) {
  constexpr std::int64_t kNumSamples = 64;
  const std::int64_t width = ids.width(), num_rows = ids.num_tokens() * ids.num_layers();
  if (width < 1 || width > std::min(kMaxTopK, num_experts)) return false;
  if (ids.num_layers() < 1 || ids.num_layers() > kMaxLayers) return false;
  if (ids.num_tokens() < ids.num_layers()) return false;
  for (std::int64_t sample = 0; sample < std::min(kNumSamples, num_rows); ++sample) {
    const std::int64_t row = num_rows * sample / kNumSamples;
    std::vector<std::int64_t> chosen;
    for (std::int64_t k = 0; k < width; ++k) {
      const std::int64_t id =
          ids.at(ids.position(row / ids.num_layers(), row % ids.num_layers(), k));
      if (id < -1 || id >= num_experts) return false;
      if (id != -1) chosen.push_back(id);
    }
    std::ranges::sort(chosen);
    if (std::ranges::adjacent_find(chosen) != chosen.end()) return false;
  }
  return true;
}

}  // namespace

IdElements read_id_elements(const std::filesystem::path& path) {
  if (torch::is_zip(path)) return elements_of_npz(path);
  return {.place = path.string(), .array = NpyFile(path)};
}

IdArray::IdArray(const NpyView& array, std::string_view place, std::string_view axes)
    : array_(array), place_(place), is_integer_(is_integer(array.dtype)) {
  const auto& shape = array.shape;
  const bool is_float = element_type_of(array.dtype) || array.dtype == Dtype::kF64;
  C2R_REQUIRE((is_integer_ || is_float) && shape.size() == 3, kInvalidFile,
              "{}: is {} {}, but must be integers [num_tokens, num_layers, top_k]", place,
              dtype_name(array.dtype), shape_text(shape));
  std::int64_t stride = 1;
  for (std::size_t axis = 3; axis > 0; --axis) {
    const std::size_t meaning = kTokensLayersK.find(axes[axis - 1]);
    extents_[meaning] = shape[axis - 1];
    strides_[meaning] = stride;
    stride *= std::max<std::int64_t>(1, shape[axis - 1]);
  }
}

std::int64_t IdArray::at(std::int64_t position) const {
  if (is_integer_) return integer_at(array_, position);
  constexpr double kMaxWhole = 9007199254740992;  // 2^53, up to which doubles are exact
  const double id = double_at(array_, position);
  C2R_REQUIRE(id == std::floor(id) && std::abs(id) <= kMaxWhole, kInvalidFile,
              "{}: element {} is {}, but ids must be whole numbers", place_, position, id);
  return static_cast<std::int64_t>(id);
}

std::optional<std::string> likely_axes(const NpyView& array, std::string_view place,
                                       std::int32_t num_experts) {
  if (array.shape.size() != 3 || array.num_elements() == 0) return std::nullopt;
  std::vector<std::string> found;
  for (const char* axes : {"TLK", "TKL", "LTK", "LKT", "KTL", "KLT"}) {
    if (is_plausible(IdArray(array, place, axes), num_experts)) found.emplace_back(axes);
  }
  if (found.size() != 1 || found[0] == kTokensLayersK) return std::nullopt;
  return found[0];
}

}  // namespace c2r
