// The limit of what statistics count.
#pragma once

#include <cstdint>

namespace c2r {

/// The most tokens that are counted together. With this limit no sum of a layer's counts overflows,
/// not even times the 1024 home ranks and 32 choices of a volume.
inline constexpr std::int64_t kMaxCountedTokens = std::int64_t{1} << 47;

}  // namespace c2r
