// Yaml as JSON, for configuration files of engines.
#pragma once

#include <string_view>

#include "c2r/io/json.h"

namespace c2r {

/// Parses the first document of a yaml text. Plain scalars that are integers become numbers, empty
/// values null, and all other scalars strings.
/// @throws Error(kInvalidFile), naming the line, for what is no yaml, a key that is there twice,
///         and aliases, with which a small file could describe a huge one
Json parse_yaml(std::string_view text, std::string_view place);

}  // namespace c2r
