// Parses the header of .npy files and reads single elements.
#include "c2r/io/npy.h"

#include <algorithm>
#include <cstring>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"
#include "c2r/io/file.h"

namespace c2r {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";

struct DescrRow {
  std::string_view descr;
  Dtype dtype;
};

constexpr DescrRow kDescrs[] = {
    {"|b1", Dtype::kBool}, {"|u1", Dtype::kU8},  {"|i1", Dtype::kI8},  {"<u2", Dtype::kU16},
    {"<i2", Dtype::kI16},  {"<i4", Dtype::kI32}, {"<i8", Dtype::kI64}, {"<f2", Dtype::kF16},
    {"<f4", Dtype::kF32},  {"<f8", Dtype::kF64},
};

// A recursive descent parser of the one dict that numpy writes:
// {'descr': '<i8', 'fortran_order': False, 'shape': (3, 4), }
class HeaderParser {
 public:
  HeaderParser(std::string_view text, std::string_view place) : text_(text), place_(place) {}

  struct Header {
    NpyView array;  // without bytes
    bool is_big_endian = false;
  };

  Header parse() {
    NpyView array;
    bool has_descr = false, has_order = false, has_shape = false;
    expect('{');
    while (!take('}')) {
      const auto key = quoted();
      expect(':');
      bool* const is_known = key == "descr"           ? &has_descr
                             : key == "fortran_order" ? &has_order
                             : key == "shape"         ? &has_shape
                                                      : nullptr;
      C2R_REQUIRE(is_known != nullptr, kInvalidFile, "{}: the header has the unknown key '{}'",
                  place_, shown(key));
      C2R_REQUIRE(!*is_known, kInvalidFile, "{}: the header has the key '{}' twice", place_, key);
      *is_known = true;
      if (key == "descr") array.dtype = descr();
      if (key == "fortran_order") require_c_order();
      if (key == "shape") array.shape = shape();
      if (!take(',')) {
        expect('}');
        break;
      }
    }
    C2R_REQUIRE(has_descr && has_order && has_shape, kInvalidFile, "{}: the header has no '{}'",
                place_,
                !has_descr   ? "descr"
                : !has_order ? "fortran_order"
                             : "shape");
    skip_spaces();
    C2R_REQUIRE(rest() == "\n", kInvalidFile,
                "{}: the header must end in a line feed after its dict, but has '{}'", place_,
                shown(rest(), 20));
    return {std::move(array), is_big_endian_};
  }

 private:
  std::string_view rest() const { return text_.substr(at_); }

  void skip_spaces() { at_ = std::min(text_.find_first_not_of(' ', at_), text_.size()); }

  bool take(char c) {
    skip_spaces();
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  bool take(std::string_view word) {
    skip_spaces();
    if (!rest().starts_with(word)) return false;
    at_ += word.size();
    return true;
  }

  void expect(char c) {
    C2R_REQUIRE(take(c), kInvalidFile, "{}: the header has '{}' at character {}, not '{}'", place_,
                shown(rest(), 20), at_, c);
  }

  std::string_view quoted() {
    const char quote = take('"') ? '"' : '\'';
    if (quote == '\'') expect('\'');
    const auto end = text_.find(quote, at_);
    C2R_REQUIRE(end != std::string_view::npos, kInvalidFile,
                "{}: the header has a string without an end at character {}", place_, at_);
    const auto string = text_.substr(at_, end - at_);
    at_ = end + 1;
    return string;
  }

  Dtype descr() {
    skip_spaces();
    C2R_REQUIRE(!rest().starts_with('['), kUnsupported,
                "{}: has a structured dtype; save each field as an array of its own", place_);
    const auto name = quoted();
    is_big_endian_ = name.starts_with('>');
    std::string descr(name);
    if (is_big_endian_) descr[0] = '<';
    const auto* const row = std::ranges::find(kDescrs, descr, &DescrRow::descr);
    C2R_REQUIRE(row != std::end(kDescrs), kUnsupported,
                "{}: has the dtype '{}', but only b1, u1, i1, u2, i2, i4, i8, f2, f4 and f8 are "
                "read; convert it with astype()",
                place_, shown(name));
    return row->dtype;
  }

  void require_c_order() {
    C2R_REQUIRE(!take("True"), kUnsupported,
                "{}: is in Fortran order; save numpy.ascontiguousarray() of it", place_);
    C2R_REQUIRE(take("False"), kInvalidFile, "{}: fortran_order is '{}', not False", place_,
                shown(rest(), 20));
  }

  std::vector<std::int64_t> shape() {
    std::vector<std::int64_t> extents;
    expect('(');
    bool has_comma = true;  // "(3)" is not a tuple
    while (!take(')')) {
      C2R_REQUIRE(has_comma, kInvalidFile, "{}: the header has '{}' at character {}, not ','",
                  place_, shown(rest(), 20), at_);
      extents.push_back(extent());
      has_comma = take(',');
    }
    C2R_REQUIRE(extents.size() != 1 || has_comma, kInvalidFile,
                "{}: the shape ({}) is not a tuple; numpy writes ({},)", place_, extents[0],
                extents[0]);
    return extents;
  }

  std::int64_t extent() {
    skip_spaces();
    const std::size_t begin = at_;
    std::int64_t value = 0;
    for (; at_ < text_.size() && '0' <= text_[at_] && text_[at_] <= '9'; ++at_) {
      C2R_REQUIRE(!__builtin_mul_overflow(value, std::int64_t{10}, &value) &&
                      !__builtin_add_overflow(value, std::int64_t{text_[at_] - '0'}, &value),
                  kInvalidFile, "{}: the shape has an extent of more than 2^63 - 1", place_);
    }
    C2R_REQUIRE(at_ > begin, kInvalidFile, "{}: the shape has '{}', not an extent", place_,
                shown(rest(), 20));
    return value;
  }

  std::string_view text_, place_;
  std::size_t at_ = 0;
  bool is_big_endian_ = false;
};

void check_element(const NpyView& array, std::int64_t i) {
  C2R_REQUIRE(0 <= i && i < array.num_elements(), kInvalidArgument,
              "element {} was asked for of an array of {}", i, array.num_elements());
}

[[noreturn]] void refuse_dtype(const NpyView& array, std::string_view wanted) {
  C2R_THROW(kInvalidArgument, "an array of {} was read as one of {}", dtype_name(array.dtype),
            wanted);
}

template <class T>
T load(const NpyView& array, std::int64_t i) {
  T value;
  std::memcpy(&value, array.bytes.data() + i * std::int64_t{sizeof(T)}, sizeof(T));
  return value;
}

HeaderParser::Header parse_any_npy(std::span<const std::byte> file, std::string_view place) {
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  C2R_REQUIRE(text.starts_with(kMagic), kInvalidFile,
              "{}: not an npy file: it does not begin with \\x93NUMPY", place);
  C2R_REQUIRE(text.size() >= 10, kInvalidFile, "{}: is cut off after {} bytes", place, text.size());
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned major = byte(6), minor = byte(7);
  C2R_REQUIRE(1 <= major && major <= 3 && minor == 0, kUnsupported,
              "{}: is of npy version {}.{}, but only 1.0, 2.0 and 3.0 are read", place, major,
              minor);
  const std::size_t header_at = major == 1 ? 10 : 12;
  C2R_REQUIRE(text.size() >= header_at, kInvalidFile, "{}: is cut off after {} bytes", place,
              text.size());
  std::size_t header_bytes = byte(8) + 256u * byte(9);
  if (major > 1) header_bytes += (std::size_t{byte(10)} << 16) + (std::size_t{byte(11)} << 24);
  C2R_REQUIRE(header_bytes <= text.size() - header_at, kInvalidFile,
              "{}: is cut off: the header claims {} bytes, the file has {}", place, header_bytes,
              text.size() - header_at);

  auto header = HeaderParser(text.substr(header_at, header_bytes), place).parse();
  NpyView& array = header.array;
  array.bytes = file.subspan(header_at + header_bytes);
  const auto expected = tensor_bytes(array.shape, array.dtype);
  C2R_REQUIRE(expected == std::ssize(array.bytes), kInvalidFile,
              "{}: shape {} of {} needs {} bytes, but the file has {}", place,
              shape_text(array.shape), dtype_name(array.dtype),
              expected ? std::to_string(*expected) : "too many", array.bytes.size());
  return header;
}

}  // namespace

NpyView parse_npy(std::span<const std::byte> file, std::string_view place) {
  auto header = parse_any_npy(file, place);
  C2R_REQUIRE(!header.is_big_endian, kUnsupported,
              "{}: is big-endian; convert it with astype() to a little-endian dtype", place);
  return std::move(header.array);
}

NpyFile::NpyFile(const std::filesystem::path& path) : NpyFile(path.string(), read_file(path)) {}

NpyFile::NpyFile(std::string place, std::vector<std::byte> bytes)
    : path_(std::move(place)), bytes_(std::move(bytes)) {
  auto header = parse_any_npy(bytes_, path_);
  array_ = std::move(header.array);
  if (!header.is_big_endian) return;
  const std::int64_t size = dtype_bytes(array_.dtype);
  for (auto at = bytes_.end() - std::ssize(array_.bytes); at != bytes_.end(); at += size) {
    std::reverse(at, at + size);
  }
}

bool is_integer(Dtype dtype) {
  switch (dtype) {
    case Dtype::kU8:
    case Dtype::kI8:
    case Dtype::kU16:
    case Dtype::kI16:
    case Dtype::kI32:
    case Dtype::kI64:
      return true;
    default:
      return false;
  }
}

std::int64_t integer_at(const NpyView& array, std::int64_t i) {
  check_element(array, i);
  switch (array.dtype) {
    case Dtype::kU8:
      return load<std::uint8_t>(array, i);
    case Dtype::kI8:
      return load<std::int8_t>(array, i);
    case Dtype::kU16:
      return load<std::uint16_t>(array, i);
    case Dtype::kI16:
      return load<std::int16_t>(array, i);
    case Dtype::kI32:
      return load<std::int32_t>(array, i);
    case Dtype::kI64:
      return load<std::int64_t>(array, i);
    default:
      refuse_dtype(array, "integers");
  }
}

double double_at(const NpyView& array, std::int64_t i) {
  check_element(array, i);
  if (array.dtype == Dtype::kF64) return load<double>(array, i);
  const auto type = element_type_of(array.dtype);
  if (!type) refuse_dtype(array, "floats");
  return load_element(array.bytes.data(), *type, i);
}

float float_at(const NpyView& array, std::int64_t i) {
  return static_cast<float>(double_at(array, i));
}

}  // namespace c2r
