// Base64 as servers use it for arrays in JSON.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

namespace c2r {

/// Decodes RFC 4648 with padding and without line breaks.
/// @throws Error(kInvalidFile), naming the place, if it is anything else
std::vector<std::byte> decode_base64(std::string_view text, std::string_view place);

}  // namespace c2r
