// What statistics may count.
#pragma once

#include <cstdint>

namespace c2r {

/// Tokens that are counted together, at most: then no sum of a layer's counts overflows.
inline constexpr std::int64_t kMaxCountedTokens = std::int64_t{1} << 47;

}  // namespace c2r
