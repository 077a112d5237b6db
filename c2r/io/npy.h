// Reads NumPy's .npy files: a magic string, a header that is a Python dict, then the elements.
// https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/io/dtype.h"

namespace c2r {

/// An array in memory that another object owns: row-major, little-endian, not aligned.
struct NpyView {
  Dtype dtype = Dtype::kU8;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;  // product of shape x dtype_bytes(dtype)

  std::int64_t num_elements() const { return std::ssize(bytes) / dtype_bytes(dtype); }
};

/// Reads versions 1 to 3 with the dtypes b1, u1, i1, u2, i2, i4, i8, f2, f4 and f8. Allocates
/// nothing but the shape.
/// @param place names the bytes in messages: the path of the file
/// @throws Error(kInvalidFile) if the header is not as numpy writes it or the file is not exactly
///         as long as it says; Error(kUnsupported) for Fortran order, big-endian and other dtypes
NpyView parse_npy(std::span<const std::byte> file, std::string_view place);

/// A .npy file, read into memory. Elements of a big-endian one are turned around.
class NpyFile {
 public:
  /// @throws as read_file() and parse_npy(), but for big-endian arrays, which are read
  explicit NpyFile(const std::filesystem::path& path);
  /// The same from the bytes of a file.
  /// @param place names the bytes in messages
  NpyFile(std::string place, std::vector<std::byte> bytes);
  NpyFile(NpyFile&&) = default;
  NpyFile& operator=(NpyFile&&) = default;

  const std::string& path() const { return path_; }
  const NpyView& array() const { return array_; }

 private:
  std::string path_;
  std::vector<std::byte> bytes_;
  NpyView array_;  // of bytes_, which stay where they are when this object is moved
};

/// @returns whether integer_at() reads the dtype
bool is_integer(Dtype dtype);

/// @returns element `i`, counted row-major, of an array of integers
/// @throws Error(kInvalidArgument) if there is no such element, or the dtype is not is_integer()
std::int64_t integer_at(const NpyView& array, std::int64_t i);

/// @returns element `i` of an array of f2, f4 or f8
/// @throws Error(kInvalidArgument) if there is no such element, or the dtype is another
double double_at(const NpyView& array, std::int64_t i);

/// The same, rounded to float.
float float_at(const NpyView& array, std::int64_t i);

}  // namespace c2r
