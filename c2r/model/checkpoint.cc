// Opens the shards of a checkpoint and finds tensors in them.
#include "c2r/model/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"
#include "c2r/io/file.h"
#include "c2r/io/json.h"
#include "c2r/model/config/unsupported.h"

namespace c2r {
namespace {

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

// A name with a folder in it could lead to any file of the machine. The system would read a name
// only up to a zero byte.
bool is_name_in_folder(const std::string& name) {
  return std::filesystem::path(name).filename() == name && !name.empty() &&
         !name.starts_with('.') && name.find('\0') == std::string::npos;
}

// Compares the first, middle and last bytes, so that not all of two models is read.
bool have_equal_samples(std::span<const std::byte> one, std::span<const std::byte> other) {
  constexpr std::size_t kSampleBytes = 256;
  if (one.size() != other.size()) return false;
  const std::size_t count = std::min(kSampleBytes, one.size());
  for (const std::size_t begin : {std::size_t{0}, (one.size() - count) / 2, one.size() - count}) {
    if (!std::ranges::equal(one.subspan(begin, count), other.subspan(begin, count))) return false;
  }
  return true;
}

// Says in which tensor the models of a single file and of shards differ; empty if they do not.
std::string difference_of(const SafetensorsFile& single, std::span<const SafetensorsFile> shards) {
  std::set<std::string_view> in_shards;
  for (const SafetensorsFile& shard : shards) {
    for (const auto& [name, tensor] : shard.tensors()) {
      in_shards.insert(name);
      const auto found = single.tensors().find(name);
      if (found == single.tensors().end()) {
        return fmt::format("tensor '{}' is only in {}", shown(name), shard.path());
      }
      const TensorView& same_name = found->second;
      if (tensor.dtype != same_name.dtype || tensor.shape != same_name.shape) {
        return fmt::format("tensor '{}' has another type or shape", shown(name));
      }
      if (!have_equal_samples(tensor.bytes, same_name.bytes)) {
        return fmt::format("tensor '{}' has other values", shown(name));
      }
    }
  }
  for (const auto& [name, tensor] : single.tensors()) {
    if (!in_shards.contains(name)) return fmt::format("they lack tensor '{}'", shown(name));
  }
  return "";
}

// The files of a folder that its index names.
// @throws Error(kInvalidFile) if the index is broken
std::set<std::string> files_of_index(const std::filesystem::path& folder) {
  std::set<std::string> files;
  const Json json = read_json_file(folder / kIndex);
  const Json& map = json_at(json, "weight_map", kIndex);
  for (const auto& [name, file] : map.items()) {
    files.insert(json_string(file, "a file of weight_map", kIndex));
  }
  return files;
}

// Says of an index beside model.safetensors, which transformers' save_pretrained leaves behind,
// that it is not used, and if its shards are there, whether they hold another model.
std::string note_of_unused_index(const std::filesystem::path& folder,
                                 const SafetensorsFile& single) {
  const std::string used =
      fmt::format("{} is used, as by transformers, and not {}", single.path(), kIndex);
  const auto is_there = [&](const std::string& file) {
    return is_name_in_folder(file) && std::filesystem::exists(folder / file);
  };
  try {
    const auto files = files_of_index(folder);
    if (files.empty() || !std::ranges::all_of(files, is_there)) {
      return used + ", whose files are not all there";
    }
    std::vector<SafetensorsFile> shards;
    shards.reserve(files.size());
    for (const std::string& file : files) shards.emplace_back(folder / file);
    const std::string difference = difference_of(single, shards);
    const std::string names = shown(fmt::format("{}", fmt::join(files, ", ")), 200);
    if (difference.empty()) {
      return fmt::format("{}, whose {} files ({}) have the same tensors, as far as compared", used,
                         files.size(), names);
    }
    return fmt::format(
        "{}, whose {} files ({}) hold another model: {}; remove the model that you "
        "do not mean",
        used, files.size(), names, difference);
  } catch (const Error&) {
    return used + ", which cannot be read";
  }
}

// @returns the position of the first value that is not finite, or -1
std::int64_t first_not_finite(std::span<const std::byte> bytes, ElementType type) {
  std::array<float, 4096> values{};
  const std::int64_t num_values = std::ssize(bytes) / element_bytes(type);
  for (std::int64_t begin = 0; begin < num_values; begin += std::ssize(values)) {
    const auto count = std::min(std::ssize(values), num_values - begin);
    const auto some = std::span(values).first(static_cast<std::size_t>(count));
    to_f32(bytes.data() + begin * element_bytes(type), type, some);
    const auto bad = std::ranges::find_if(some, [](float v) { return !std::isfinite(v); });
    if (bad != some.end()) return begin + (bad - some.begin());
  }
  return -1;
}

}  // namespace

bool has_weight_files(const std::filesystem::path& folder) {
  return path_exists(folder / kSingle) || path_exists(folder / kIndex) ||
         !why_no_checkpoint(folder).empty();
}

Checkpoint::Checkpoint(const std::filesystem::path& folder) : folder_(folder.string()) {
  const bool has_single = path_exists(folder / kSingle), has_index = path_exists(folder / kIndex);
  C2R_REQUIRE(has_single || has_index, kInvalidFile, "{}: has neither {} nor {}{}", folder_,
              kSingle, kIndex, why_no_checkpoint(folder));
  if (!has_single) {
    read_index(folder, folder / kIndex);
    return;
  }
  shards_.emplace_back(folder / kSingle);
  collect();
  if (has_index) note_ = note_of_unused_index(folder, shards_.front());
}

void Checkpoint::collect() {
  for (std::size_t shard = 0; shard < shards_.size(); ++shard) {
    for (const auto& [name, view] : shards_[shard].tensors()) {
      const auto [at, is_new] = shard_of_.emplace(name, shard);
      C2R_REQUIRE(is_new, kInvalidFile, "{}: tensor '{}' is also in {}", shards_[shard].path(),
                  shown(name), shards_[at->second].path());
    }
  }
}

void Checkpoint::read_index(const std::filesystem::path& folder,
                            const std::filesystem::path& index) {
  const std::string place = index.string();
  const Json json = read_json_file(index);
  const Json& map = json_at(json, "weight_map", place);
  C2R_REQUIRE(map.is_object(), kInvalidFile, "{}: weight_map must be an object", place);
  std::map<std::string, std::size_t> shard_of_file;
  for (const auto& [name, file] : map.items()) {
    const std::string& shard = json_string(file, "a file of weight_map", place);
    C2R_REQUIRE(is_name_in_folder(shard), kInvalidFile,
                "{}: weight_map names '{}', which is not a file of the folder", place,
                shown(shard));
    const auto [at, is_new] = shard_of_file.emplace(shard, shards_.size());
    if (is_new) shards_.emplace_back(folder / shard);
    C2R_REQUIRE(shards_[at->second].has(name), kInvalidFile,
                "{}: has no tensor '{}', but {} says so", shards_[at->second].path(), shown(name),
                kIndex);
  }
  collect();
}

const SafetensorsFile& Checkpoint::shard_with(std::string_view name) const {
  const auto found = shard_of_.find(name);
  C2R_REQUIRE(found != shard_of_.end(), kInvalidFile, "{}: the checkpoint has no tensor '{}'",
              folder_, name);
  return shards_[found->second];
}

const TensorView& Checkpoint::tensor(std::string_view name) const {
  return shard_with(name).tensor(name);
}

Checkpoint::Stored Checkpoint::stored(const std::string& name,
                                      std::span<const std::int64_t> shape) {
  const SafetensorsFile& shard = shard_with(name);
  const Dtype dtype = shard.tensor(name).dtype;
  const auto type = element_type_of(dtype);
  C2R_REQUIRE(type.has_value(), kInvalidFile,
              "{}: tensor '{}' is {}, but weights must be F32, F16 or BF16", shard.path(), name,
              dtype_name(dtype));
  used_.insert(name);
  return {shard.checked_bytes(name, dtype, shape), *type};
}

RowsView Checkpoint::matrix(const std::string& name, std::int64_t num_outputs,
                            std::int64_t num_inputs) {
  const auto [bytes, type] = stored(name, std::array{num_outputs, num_inputs});
  return {bytes, type, num_outputs, num_inputs};
}

std::vector<float> Checkpoint::vector(const std::string& name, std::int64_t size) {
  const auto [bytes, type] = stored(name, std::array{size});
  std::vector<float> values(static_cast<std::size_t>(size));
  to_f32(bytes.data(), type, values);
  return values;
}

void Checkpoint::check_all_used(std::span<const std::string_view> unused) const {
  for (const auto& [name, shard] : shard_of_) {
    const bool is_unused = std::ranges::any_of(
        unused, [&name = name](std::string_view end) { return name.ends_with(end); });
    C2R_REQUIRE(is_unused || used_.contains(name), kInvalidFile,
                "{}: tensor '{}' is no part of a model with this config.json",
                shards_[shard].path(), shown(name));
  }
}

void Checkpoint::check_finite() const {
  for (const SafetensorsFile& shard : shards_) {
    for (const auto& [name, tensor] : shard.tensors()) {
      const auto type = element_type_of(tensor.dtype);
      if (!type) continue;
      const std::int64_t at = first_not_finite(tensor.bytes, *type);
      C2R_REQUIRE(at < 0, kInvalidFile, "{}: value {} of tensor '{}' is {}, but must be finite",
                  shard.path(), at, shown(name), load_element(tensor.bytes.data(), *type, at));
    }
  }
}

std::int64_t Checkpoint::num_bytes() const {
  std::int64_t sum = 0;
  for (const SafetensorsFile& shard : shards_) {
    for (const auto& [name, tensor] : shard.tensors()) sum += std::ssize(tensor.bytes);
  }
  return sum;
}

}  // namespace c2r
