// Elements of arrays by integers and typed ids, without a conversion at each use.
#pragma once

#include <cstddef>
#include <iterator>
#include <utility>

#include "c2r/core/error.h"

namespace c2r {

/// values[i], for an array or span `values` and an `i` of any integer or id type. `i` must be in
/// range: builds with assertions check it.
template <class Values, class Index>
constexpr decltype(auto) at(Values&& values, Index i) {
  C2R_ASSERT(static_cast<std::size_t>(i) < std::size(values));
  return std::forward<Values>(values)[static_cast<std::size_t>(i)];
}

}  // namespace c2r
