// Base64 of RFC 4648, with padding and without line breaks, in which servers and pages put arrays
// into text.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace c2r {

/// @returns the digits of `bytes`, four for each three bytes and four for the rest
std::string encode_base64(std::span<const std::byte> bytes);

/// @param place where the text is, for messages
/// @returns the bytes whose digits are `text`
/// @throws Error(kInvalidFile), naming the place, if the text is not padded base64
std::vector<std::byte> decode_base64(std::string_view text, std::string_view place);

/// Decodes large texts block after block, so that the bytes are not in memory all at once.
/// @param block is called with the bytes of each block, in order; all but the last have a multiple
///        of 24 bytes
void decode_base64_blocks(std::string_view text, std::string_view place,
                          const std::function<void(std::span<const std::byte>)>& block);

}  // namespace c2r
