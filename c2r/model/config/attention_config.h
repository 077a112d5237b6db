// Reads the keys of config.json about the sizes of the model, its attention and its positions.
#pragma once

#include "c2r/model/config.h"
#include "c2r/model/config/config_reader.h"

namespace c2r {

/// Fills the fields from `hidden` to `has_tied_embeddings`. `config.family` must be set.
/// @throws Error(kInvalidFile), Error(kUnsupported), naming the key, its value and the allowed ones
void read_attention_config(ConfigReader& reader, ModelConfig& config);

}  // namespace c2r
