// Conversion of whole rows between f32 and the other element types, in loops that compilers turn
// into vector instructions.
#include "c2r/core/element.h"

#include "c2r/core/enum_names.h"

namespace c2r {
namespace {

constexpr EnumName<ElementType> kElementTypes[] = {
    {ElementType::kF32, "f32"}, {ElementType::kF16, "f16"}, {ElementType::kBf16, "bf16"}};

// Element `i` of a row of constant type, so that no loop has to look at the type.
template <ElementType kType>
float load(const std::byte* row, std::size_t i) {
  return load_element(row, kType, static_cast<std::int64_t>(i));
}

template <ElementType kType>
void store(std::byte* row, std::size_t i, float value) {
  store_element(row, kType, static_cast<std::int64_t>(i), value);
}

// Calls `body`, a lambda with the type as its template argument.
template <class Body>
void with_type(ElementType type, const Body& body) {
  switch (type) {
    case ElementType::kF32:
      return body.template operator()<ElementType::kF32>();
    case ElementType::kF16:
      return body.template operator()<ElementType::kF16>();
    case ElementType::kBf16:
      return body.template operator()<ElementType::kBf16>();
  }
}

}  // namespace

std::string_view name_of(ElementType type) {
  return name_in(kElementTypes, type);
}

void to_f32(const std::byte* __restrict from, ElementType type, std::span<float> to) {
  if (type == ElementType::kF32) {
    if (!to.empty()) std::memcpy(to.data(), from, to.size_bytes());
    return;
  }
  float* const __restrict out = to.data();
  with_type(type, [&]<ElementType kType>() {
    for (std::size_t i = 0; i < to.size(); ++i) out[i] = load<kType>(from, i);
  });
}

void from_f32(std::span<const float> from, ElementType type, std::byte* __restrict to) {
  if (type == ElementType::kF32) {
    if (!from.empty()) std::memcpy(to, from.data(), from.size_bytes());
    return;
  }
  const float* const __restrict in = from.data();
  with_type(type, [&]<ElementType kType>() {
    for (std::size_t i = 0; i < from.size(); ++i) store<kType>(to, i, in[i]);
  });
}

void add_weighted(const std::byte* __restrict from, ElementType type, float weight,
                  std::span<float> sum) {
  float* const __restrict out = sum.data();
  with_type(type, [&]<ElementType kType>() {
    for (std::size_t i = 0; i < sum.size(); ++i) out[i] += weight * load<kType>(from, i);
  });
}

template <class Byte>
void BasicRowsView<Byte>::check_size(std::size_t size) const {
  std::int64_t needed = element_bytes(type_);
  const bool is_possible = rows_ >= 0 && cols_ >= 0 &&
                           !__builtin_mul_overflow(needed, rows_, &needed) &&
                           !__builtin_mul_overflow(needed, cols_, &needed);
  C2R_REQUIRE(is_possible && static_cast<std::size_t>(needed) == size, kInvalidArgument,
              "rows [{}, {}] of {} do not fill {} bytes", rows_, cols_, name_of(type_), size);
}

template <class Byte>
void BasicRowsView<Byte>::refuse_access(std::int64_t r, std::size_t num_values) const {
  C2R_THROW(kInvalidArgument, "row {} of {} values was asked for, but there are rows [{}, {}]", r,
            num_values, rows_, cols_);
}

template class BasicRowsView<const std::byte>;
template class BasicRowsView<std::byte>;

}  // namespace c2r
