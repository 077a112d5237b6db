// Says of a model that c2r cannot run what it is, why it does not run, and what to do.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "c2r/io/json.h"

namespace c2r {

/// @returns why c2r does not run a family that it knows of, to follow "which"; empty if it does not
///          know of it
std::string why_not_family(std::string_view model_type);

/// @param config of config.json
/// @throws Error(kUnsupported) if the weights are quantized, naming the method and the remedy
void check_not_quantized(const Json& config, std::string_view place);

/// @throws Error(kUnsupported) if the folder has a file of a tool that quantizes weights; for those
///         that say nothing in config.json
void check_no_file_of_quantizer(const std::filesystem::path& folder);

/// @throws Error(kInvalidFile), Error(kUnsupported) if `folder` has no config.json; for GGUF files,
///         adapters of PEFT and names, addresses and caches of the Hugging Face hub with the remedy
void check_model_folder(const std::filesystem::path& folder);

/// @returns why a folder with a config.json has no checkpoint that c2r reads, and the remedy
std::string why_no_checkpoint(const std::filesystem::path& folder);

}  // namespace c2r
