// Yaml as JSON, for configuration files of engines.
#pragma once

#include <cstdint>
#include <string_view>

#include "c2r/io/json.h"

namespace c2r {

/// 1024 layers of 2048 slots with commas between them.
constexpr std::int64_t kMaxYamlMarks = std::int64_t{1} << 21;

/// Parses the first document of a yaml text. Plain scalars that are integers become numbers, empty
/// values null, and all other scalars strings.
/// @throws Error(kInvalidFile), naming the line, for what is no yaml, a key that is there twice,
///         aliases, with which a small file could describe a huge one, and more than `max_marks`
///         of the characters that begin values, or more than the memory that is free can take
Json parse_yaml(std::string_view text, std::string_view place,
                std::int64_t max_marks = kMaxYamlMarks);

}  // namespace c2r
