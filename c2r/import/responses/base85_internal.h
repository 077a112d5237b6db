// Base85 as Python's base64.b85encode() writes it: five digits for four bytes.
// https://docs.python.org/3/library/base64.html#base64.b85encode
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

namespace c2r {

/// @throws Error(kInvalidFile) if something is no digit, or a group of digits is one digit alone or
///         a number of more than four bytes
std::vector<std::byte> decode_base85(std::string_view text, std::string_view place);

}  // namespace c2r
