// Opens files of torch.save() and hands out their values and tensors.
#include <algorithm>
#include <cstring>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"
#include "c2r/import/torch/torch_file_internal.h"

namespace c2r::torch {
namespace {

constexpr std::string_view kZipMagic = "PK\x03\x04", kPickleName = "/data.pkl";

// The pickle of a magic number, with which files of versions before 1.6 begin.
constexpr std::string_view kOldMagic = "\x80\x02\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

bool begins_with(std::span<const std::byte> bytes, std::string_view magic) {
  return bytes.size() >= magic.size() && std::memcmp(bytes.data(), magic.data(), magic.size()) == 0;
}

MappedFile open_archive(const std::filesystem::path& path) {
  MappedFile file(path);
  C2R_REQUIRE(
      !begins_with(file.bytes(), kOldMagic), kUnsupported,
      "{}: is in the format that torch had before version 1.6; load and save it with a newer "
      "one",
      path.string());
  C2R_REQUIRE(begins_with(file.bytes(), kZipMagic), kInvalidFile,
              "{}: is not a file of torch.save(): it does not begin like a zip archive",
              path.string());
  return file;
}

// "NAME/", if the archive has NAME/data.pkl.
std::string prefix_of(const ZipArchive& zip, std::string_view place) {
  for (const auto& [name, entry] : zip.entries()) {
    if (!name.ends_with(kPickleName)) continue;
    const std::string_view folder = name.substr(0, name.size() - kPickleName.size());
    if (folder.find('/') == std::string_view::npos) return std::string(folder) + "/";
  }
  C2R_THROW(kInvalidFile,
            "{}: is a zip archive without data.pkl, so it is not a file of torch.save()", place);
}

// What the places of the outermost elements are multiplied with, if elements lie row-major.
std::vector<std::int64_t> contiguous_strides(const std::vector<std::int64_t>& shape) {
  std::vector<std::int64_t> strides(shape.size(), 1);
  for (std::size_t d = shape.size(); d > 1; --d) strides[d - 2] = strides[d - 1] * shape[d - 1];
  return strides;
}

bool is_contiguous(const Tensor& tensor) {
  const auto expected = contiguous_strides(tensor.shape);
  for (std::size_t d = 0; d < expected.size(); ++d) {
    if (tensor.shape[d] != 1 && tensor.strides[d] != expected[d]) return false;
  }
  return true;
}

// The last element that the tensor reads in its storage; nothing if that does not fit.
std::optional<std::int64_t> last_element(const Tensor& tensor) {
  std::int64_t last = tensor.offset;
  if (last < 0) return std::nullopt;
  for (std::size_t d = 0; d < tensor.shape.size(); ++d) {
    std::int64_t distance = 0;
    if (tensor.strides[d] < 0 ||
        __builtin_mul_overflow(tensor.shape[d] - 1, tensor.strides[d], &distance) ||
        __builtin_add_overflow(last, distance, &last)) {
      return std::nullopt;
    }
  }
  return last;
}

// The elements of a tensor, in row-major order.
std::vector<std::byte> gather(const Tensor& tensor, std::span<const std::byte> storage,
                              std::int64_t num_elements) {
  const auto size = static_cast<std::size_t>(dtype_bytes(tensor.dtype));
  const auto divisors = contiguous_strides(tensor.shape);
  std::vector<std::byte> bytes(static_cast<std::size_t>(num_elements) * size);
  for (std::int64_t i = 0; i < num_elements; ++i) {
    std::int64_t rest = i, at = tensor.offset;
    for (std::size_t d = 0; d < divisors.size(); ++d) {
      at += rest / divisors[d] * tensor.strides[d];
      rest %= divisors[d];
    }
    std::memcpy(bytes.data() + static_cast<std::size_t>(i) * size,
                storage.data() + static_cast<std::size_t>(at) * size, size);
  }
  return bytes;
}

}  // namespace

bool is_zip(const std::filesystem::path& path) {
  return std::filesystem::is_regular_file(path) && begins_with(MappedFile(path).bytes(), kZipMagic);
}

TorchFile::TorchFile(const std::filesystem::path& path)
    : path_(path.string()),
      file_(open_archive(path)),
      zip_(file_.bytes(), path_),
      prefix_(prefix_of(zip_, path_)) {
  const auto& entries = zip_.entries();
  const auto byte_order = entries.find(prefix_ + "byteorder");
  C2R_REQUIRE(byte_order == entries.end() || begins_with(byte_order->second.stored, "little"),
              kUnsupported, "{}: was written on a big-endian machine", path_);
  objects_ = read_pickle(entries.find(prefix_ + "data.pkl")->second.stored, path_ + ", data.pkl");
}

void TorchFile::require(const Value& value, Kind kind, std::string_view what) const {
  C2R_REQUIRE(value.kind == kind, kInvalidFile, "{}: {} is {}, but must be {}", path_, what,
              kind_text(value.kind), kind_text(kind));
}

std::span<const Value> TorchFile::items(const Value& list, std::string_view what) const {
  if (list.kind != Kind::kTuple) require(list, Kind::kList, what);
  return objects_.containers[static_cast<std::size_t>(list.number)];
}

const Value* TorchFile::find(const Value& dict, std::string_view key, std::string_view what) const {
  require(dict, Kind::kDict, what);
  const auto& entries = objects_.containers[static_cast<std::size_t>(dict.number)];
  const Value* found = nullptr;
  for (std::size_t i = 0; i < entries.size(); i += 2) {  // of equal keys, the last one counts
    if (entries[i].kind != Kind::kString || string(entries[i], "a key") != key) continue;
    found = entries[i + 1].kind == Kind::kNone ? nullptr : &entries[i + 1];
  }
  return found;
}

const Value& TorchFile::at(const Value& dict, std::string_view key, std::string_view what) const {
  const Value* const found = find(dict, key, what);
  C2R_REQUIRE(found != nullptr, kInvalidFile, "{}: {} has no '{}'", path_, what, key);
  return *found;
}

std::vector<std::string_view> TorchFile::keys(const Value& dict, std::string_view what) const {
  require(dict, Kind::kDict, what);
  const auto& entries = objects_.containers[static_cast<std::size_t>(dict.number)];
  std::vector<std::string_view> keys;
  for (std::size_t i = 0; i < entries.size(); i += 2) {
    if (entries[i].kind == Kind::kString) keys.push_back(string(entries[i], "a key"));
  }
  return keys;
}

std::int64_t TorchFile::integer(const Value& value, std::string_view what) const {
  require(value, Kind::kInteger, what);
  return value.number;
}

std::string_view TorchFile::string(const Value& value, std::string_view what) const {
  require(value, Kind::kString, what);
  return objects_.strings[static_cast<std::size_t>(value.number)];
}

std::span<const std::byte> TorchFile::storage_of(const Tensor& tensor,
                                                 const std::string& where) const {
  const auto entry = zip_.entries().find(prefix_ + "data/" + std::string(tensor.storage.key));
  C2R_REQUIRE(entry != zip_.entries().end(), kInvalidFile,
              "{}: its storage '{}' is not in the archive", where, shown(tensor.storage.key));
  const std::int64_t size = dtype_bytes(tensor.storage.dtype.value_or(Dtype::kU8));
  const std::int64_t claimed[] = {tensor.storage.num_elements};
  const auto bytes = tensor_bytes(claimed, tensor.storage.dtype.value_or(Dtype::kU8));
  C2R_REQUIRE(bytes && *bytes <= std::ssize(entry->second.stored), kInvalidFile,
              "{}: its storage '{}' has {} elements of {} bytes, but {} bytes are in the archive",
              where, shown(tensor.storage.key), tensor.storage.num_elements, size,
              entry->second.stored.size());
  return entry->second.stored.first(static_cast<std::size_t>(*bytes));
}

TensorData TorchFile::tensor(const Value& value, std::string_view what) const {
  require(value, Kind::kTensor, what);
  const Tensor& tensor = objects_.tensors[static_cast<std::size_t>(value.number)];
  const std::string where = fmt::format("{}: {}", path_, what);
  const auto storage = storage_of(tensor, where);
  C2R_REQUIRE(tensor.shape.size() == tensor.strides.size(), kInvalidFile,
              "{}: has {} extents and {} strides", where, tensor.shape.size(),
              tensor.strides.size());
  const auto bytes = tensor_bytes(tensor.shape, tensor.dtype);
  C2R_REQUIRE(
      bytes && *bytes <= std::ssize(storage), kInvalidFile,
      "{}: has the shape {}, but its storage only {} bytes; save it with .contiguous() if it "
      "was expanded",
      where, shape_text(tensor.shape), storage.size());
  NpyView view{.dtype = tensor.dtype, .shape = tensor.shape};
  if (*bytes == 0) return {std::move(view), {}};
  const std::int64_t size = dtype_bytes(tensor.dtype);
  const auto last = last_element(tensor);
  C2R_REQUIRE(last && *last < std::ssize(storage) / size, kInvalidFile,
              "{}: reaches out of its storage of {} bytes", where, storage.size());
  if (!is_contiguous(tensor)) {
    return {std::move(view), gather(tensor, storage, *bytes / size)};
  }
  view.bytes = storage.subspan(static_cast<std::size_t>(tensor.offset * size),
                               static_cast<std::size_t>(*bytes));
  return {std::move(view), {}};
}

}  // namespace c2r::torch
