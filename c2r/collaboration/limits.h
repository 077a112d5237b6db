// What statistics may count.
#pragma once

#include <cstdint>

namespace c2r {

/// Tokens that are counted together, at most: then no sum of a layer's counts overflows, not even
/// times the 1024 home ranks and 32 choices of a volume.
inline constexpr std::int64_t kMaxCountedTokens = std::int64_t{1} << 47;

}  // namespace c2r
