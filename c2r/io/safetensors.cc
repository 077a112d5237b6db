// Parses and checks the header of safetensors files, and writes such files.
#include "c2r/io/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"
#include "c2r/io/json.h"

namespace c2r {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are used as they lie on disk");

constexpr std::uint64_t kLengthBytes = 8;
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // the official library's limit

Dtype parse_dtype(const std::string& name, std::string_view place) {
  const auto dtype = dtype_of_name(name);
  C2R_REQUIRE(dtype.has_value(), kInvalidFile, "{}: dtype '{}' is not known", place, shown(name));
  return *dtype;
}

struct ParsedTensor {
  TensorView view;
  std::int64_t begin = 0, end = 0;  // in the data section
};

ParsedTensor parse_tensor(const Json& entry, std::int64_t data_bytes, const std::string& place) {
  C2R_REQUIRE(entry.is_object() && entry.size() == 3, kInvalidFile,
              "{}: must have exactly the keys dtype, shape and data_offsets", place);
  ParsedTensor tensor;
  tensor.view.dtype =
      parse_dtype(json_string(json_at(entry, "dtype", place), "dtype", place), place);
  for (const Json& extent : json_array(json_at(entry, "shape", place), "shape", place)) {
    tensor.view.shape.push_back(json_integer(extent, 0, INT64_MAX, "an extent of shape", place));
  }
  const auto& offsets = json_array(json_at(entry, "data_offsets", place), "data_offsets", place);
  C2R_REQUIRE(offsets.size() == 2, kInvalidFile, "{}: data_offsets has {} numbers, not 2", place,
              offsets.size());
  tensor.end = json_integer(offsets[1], 0, data_bytes, "the end in data_offsets", place);
  tensor.begin = json_integer(offsets[0], 0, tensor.end, "the begin in data_offsets", place);
  const auto expected = tensor_bytes(tensor.view.shape, tensor.view.dtype);
  C2R_REQUIRE(expected == tensor.end - tensor.begin, kInvalidFile,
              "{}: shape {} of {} needs {} bytes, but data_offsets span {}", place,
              shape_text(tensor.view.shape), dtype_name(tensor.view.dtype),
              expected ? std::to_string(*expected) : "too many", tensor.end - tensor.begin);
  return tensor;
}

void check_tiling(std::vector<std::pair<std::string, ParsedTensor>>& tensors,
                  std::int64_t data_bytes, const std::string& path) {
  std::ranges::sort(tensors, {}, [](const auto& named) {
    return std::pair(named.second.begin, named.second.end);
  });
  std::int64_t filled = 0;
  for (const auto& [name, tensor] : tensors) {
    C2R_REQUIRE(tensor.begin == filled, kInvalidFile,
                "{}: tensor '{}' begins at byte {} of the data, but the one before it ends at {}",
                path, shown(name), tensor.begin, filled);
    filled = tensor.end;
  }
  C2R_REQUIRE(filled == data_bytes, kInvalidFile,
              "{}: the tensors end at byte {}, but the data has {}", path, filled, data_bytes);
}

}  // namespace

bool is_safetensors(const std::filesystem::path& path) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  if (bytes.size() <= kLengthBytes) return false;
  std::uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), kLengthBytes);
  return header_bytes <= kMaxHeaderBytes && bytes[kLengthBytes] == std::byte{'{'};
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path)
    : path_(path.string()), file_(path) {
  const auto bytes = file_.bytes();
  std::uint64_t header_bytes = 0;
  C2R_REQUIRE(bytes.size() >= kLengthBytes, kInvalidFile,
              "{}: has {} bytes, too short for a safetensors file", path_, bytes.size());
  std::memcpy(&header_bytes, bytes.data(), kLengthBytes);
  C2R_REQUIRE(header_bytes <= bytes.size() || bytes[0] != std::byte{'{'}, kInvalidFile,
              "{}: is JSON, as plans are, not a safetensors file, as traces are", path_);
  C2R_REQUIRE(header_bytes <= std::min(kMaxHeaderBytes, bytes.size() - kLengthBytes), kInvalidFile,
              "{}: not a safetensors file, or cut off: the header claims {} bytes, the file has {}",
              path_, header_bytes, bytes.size() - kLengthBytes);
  const auto data = bytes.subspan(kLengthBytes + header_bytes);
  const auto data_bytes = static_cast<std::int64_t>(data.size());

  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + kLengthBytes,
                              header_bytes);
  const Json header = parse_json(text, path_ + ", header");
  C2R_REQUIRE(header.is_object(), kInvalidFile, "{}: the header is not a JSON object", path_);
  std::vector<std::pair<std::string, ParsedTensor>> tensors;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      const std::string place = path_ + ", __metadata__";
      if (entry.is_null()) continue;  // as the official library
      C2R_REQUIRE(entry.is_object(), kInvalidFile, "{}: must be a JSON object", place);
      for (const auto& [key, value] : entry.items()) {
        metadata_.emplace(key, json_string(value, fmt::format("'{}'", shown(key)), place));
      }
    } else {
      const std::string place = fmt::format("{}: tensor '{}'", path_, shown(name));
      tensors.emplace_back(name, parse_tensor(entry, data_bytes, place));
    }
  }
  check_tiling(tensors, data_bytes, path_);
  for (auto& [name, tensor] : tensors) {
    tensor.view.bytes = aligned(data.subspan(static_cast<std::size_t>(tensor.begin),
                                             static_cast<std::size_t>(tensor.end - tensor.begin)),
                                tensor.view.dtype);
    tensors_.emplace(name, std::move(tensor.view));
  }
}

// Old writers did not pad the header, and then no tensor is aligned.
std::span<const std::byte> SafetensorsFile::aligned(std::span<const std::byte> bytes, Dtype dtype) {
  const auto address = reinterpret_cast<std::uintptr_t>(bytes.data());
  if (address % static_cast<std::uintptr_t>(dtype_bytes(dtype)) == 0) return bytes;
  return copies_.emplace_back(bytes.begin(), bytes.end());
}

const TensorView& SafetensorsFile::tensor(std::string_view name) const {
  const auto found = tensors_.find(name);
  C2R_REQUIRE(found != tensors_.end(), kInvalidFile, "{}: has no tensor '{}'", path_, name);
  return found->second;
}

std::span<const std::byte> SafetensorsFile::checked_bytes(
    std::string_view name, Dtype dtype, std::span<const std::int64_t> shape) const {
  const TensorView& view = tensor(name);
  const bool fits = std::ranges::equal(view.shape, shape,
                                       [](auto is, auto want) { return want == -1 || is == want; });
  C2R_REQUIRE(view.dtype == dtype && fits, kInvalidFile, "{}: tensor '{}' is {} {}, not {} {}",
              path_, name, dtype_name(view.dtype), shape_text(view.shape), dtype_name(dtype),
              shape_text(shape));
  return view.bytes;
}

const std::string& SafetensorsFile::metadata_at(std::string_view key) const {
  const auto found = metadata_.find(key);
  C2R_REQUIRE(found != metadata_.end(), kInvalidFile, "{}: the metadata has no '{}'", path_, key);
  return found->second;
}

void write_safetensors(const std::filesystem::path& path, std::vector<TensorToWrite> tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::ranges::stable_sort(tensors, std::ranges::greater{},
                           [](const TensorToWrite& t) { return dtype_bytes(t.dtype); });
  Json header = Json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::int64_t offset = 0;
  for (const TensorToWrite& tensor : tensors) {
    C2R_REQUIRE(!header.contains(tensor.name), kInvalidArgument, "{}: two tensors are called '{}'",
                path.string(), tensor.name);
    const auto num_bytes = tensor_bytes(tensor.shape, tensor.dtype);
    C2R_REQUIRE(num_bytes.has_value(), kInvalidArgument, "{}: tensor '{}' cannot have the shape {}",
                path.string(), tensor.name, shape_text(tensor.shape));
    const std::int64_t end = offset + *num_bytes;
    header[tensor.name] = {{"dtype", dtype_name(tensor.dtype)},
                           {"shape", tensor.shape},
                           {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = json_text(header);
  text.append((8 - text.size() % 8) % 8, ' ');  // so that the data starts at a multiple of 8

  AtomicFile file(path);
  const std::uint64_t header_bytes = text.size();
  file.write(std::as_bytes(std::span(&header_bytes, 1)));
  file.write(text);
  for (const TensorToWrite& tensor : tensors) {
    const std::int64_t before = file.num_bytes();
    tensor.write(file);
    const std::int64_t written = file.num_bytes() - before;
    const std::int64_t expected = tensor_bytes(tensor.shape, tensor.dtype).value();
    C2R_REQUIRE(written == expected, kInvalidArgument,
                "{}: {} bytes were written of tensor '{}', which has {}", path.string(), written,
                tensor.name, expected);
  }
  file.commit();
}

}  // namespace c2r
