// SGLang's `--init-expert-location map.pt`.
#pragma once

#include <filesystem>
#include <string>

namespace c2r::torch {

/// @returns the JSON that SGLang would take instead of the file: the same keys;
///          `physical_to_logical_map` as nested lists [num_hidden_layers][num_slots], null for
///          others
/// @throws Error(kInvalidFile) if it is no file of torch.save() with a dict in it
std::string sglang_map_text(const std::filesystem::path& path);

}  // namespace c2r::torch
