// What generation_config.json of a model folder says about generating text.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/core/ids.h"
#include "c2r/io/json.h"

namespace c2r {

struct GenerationConfig {
  std::vector<TokenId> eos_ids;  // tokens that end a text, in the order of the file
  // Settings that change a text and that c2r does not take from the file, as "key value".
  std::vector<std::string> unused;
};

/// @param value a token id or an array of them; null: none
/// @param place the file, for messages
/// @returns the ids below `vocab_size`; the model never generates others
/// @throws Error(kInvalidFile) if a value is not an integer
std::vector<TokenId> parse_eos_ids(const Json* value, std::int64_t vocab_size,
                                   std::string_view place);

/// Reads generation_config.json of a model's folder. As in transformers, its tokens that end a text
/// replace those of config.json, and a file without any has none.
/// @returns nothing if there is no such file
/// @throws Error(kInvalidFile) if it is broken
std::optional<GenerationConfig> read_generation_config(const std::filesystem::path& folder,
                                                       std::int64_t vocab_size);

}  // namespace c2r
