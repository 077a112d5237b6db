// Reads and writes safetensors files: the header's length in 8 bytes, a JSON header, then the
// tensors. https://github.com/huggingface/safetensors#format
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/io/dtype.h"
#include "c2r/io/file.h"

namespace c2r {

/// One tensor of an open file, row-major and little-endian. The bytes belong to the file.
struct TensorView {
  Dtype dtype = Dtype::kU8;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;
};

/// @returns whether the file begins like a safetensors file, for messages about files of the wrong
///          format
/// @throws Error(kInvalidFile) if it cannot be read
bool is_safetensors(const std::filesystem::path& path);

/// A safetensors file, mapped. Opening reads and checks the whole header: sizes agree with shapes
/// and dtypes, and the tensors fill the rest of the file without gaps or overlaps. Tensors are used
/// as they lie in the mapped file; one that is not aligned to its dtype is copied to memory.
class SafetensorsFile {
 public:
  /// @throws Error(kInvalidFile), naming the file and the tensor
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::string& path() const { return path_; }
  const std::map<std::string, TensorView, std::less<>>& tensors() const { return tensors_; }
  /// The header's `__metadata__`; empty if there is none.
  const std::map<std::string, std::string, std::less<>>& metadata() const { return metadata_; }

  /// @returns the whole file, mapped
  std::span<const std::byte> bytes() const { return file_.bytes(); }

  bool has(std::string_view name) const { return tensors_.contains(name); }

  /// @returns the tensor `name`, valid while this object lives
  /// @throws Error(kInvalidFile) if there is no such tensor
  const TensorView& tensor(std::string_view name) const;

  /// @param shape the expected shape; an extent of -1 accepts any
  /// @returns the elements of the tensor `name`, aligned to the size of T
  /// @throws Error(kInvalidFile) if it is absent or has another dtype or shape
  template <class T>
  std::span<const T> elements(std::string_view name, std::span<const std::int64_t> shape) const {
    static_assert(kDtypeOf<T>.has_value());
    const auto bytes = checked_bytes(name, *kDtypeOf<T>, shape);
    return {reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T)};
  }

  /// As elements(), for a dtype that is known at run time only.
  std::span<const std::byte> checked_bytes(std::string_view name, Dtype dtype,
                                           std::span<const std::int64_t> shape) const;

  /// @returns metadata()[key]
  /// @throws Error(kInvalidFile) if it is absent
  const std::string& metadata_at(std::string_view key) const;

 private:
  std::span<const std::byte> aligned(std::span<const std::byte> bytes, Dtype dtype);

  std::string path_;
  MappedFile file_;
  std::vector<std::vector<std::byte>> copies_;  // of tensors that are not aligned in the file
  std::map<std::string, TensorView, std::less<>> tensors_;
  std::map<std::string, std::string, std::less<>> metadata_;
};

/// A tensor to be written. `write` is called once and appends exactly shape x dtype bytes to the
/// file, with any number of calls.
struct TensorToWrite {
  std::string name;
  Dtype dtype = Dtype::kU8;
  std::vector<std::int64_t> shape;
  std::function<void(AtomicFile&)> write;
};

/// @param elements must outlive the call to write_safetensors()
template <class T>
TensorToWrite tensor_of(std::string name, std::vector<std::int64_t> shape,
                        std::span<const T> elements) {
  static_assert(kDtypeOf<T>.has_value());
  return {std::move(name), *kDtypeOf<T>, std::move(shape),
          [elements](AtomicFile& file) { file.write(std::as_bytes(elements)); }};
}

/// Writes a safetensors file through AtomicFile. Tensors are stored in the order given, but wider
/// dtypes first, so that every tensor is aligned to its dtype. The same arguments give the same
/// bytes. Invalid UTF-8 in a name or in the metadata becomes U+FFFD.
/// @throws Error(kInvalidArgument) if two tensors have one name, a shape is impossible, or `write`
///         appends another number of bytes; Error(kInvalidFile) if the file cannot be written
void write_safetensors(const std::filesystem::path& path, std::vector<TensorToWrite> tensors,
                       const std::map<std::string, std::string>& metadata);

}  // namespace c2r
