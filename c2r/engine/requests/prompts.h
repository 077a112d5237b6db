// Reads prompts from a file, and makes the requests to continue them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "c2r/engine/generate.h"
#include "c2r/engine/requests/sequence_files.h"

namespace c2r {

struct Prompt {
  std::vector<TokenId> tokens;
  bool is_text = false;  // false: the file has its token ids
  std::string place;     // "FILE:3"
};

/// Reads a file of JSON lines, each a string or an array of token ids.
/// @returns the prompts, in the order of the file
/// @throws Error(kInvalidFile), naming the line; Error(kInvalidArgument) if there is no prompt;
///         what `read` throws
std::vector<Prompt> read_prompts(const std::string& path, TextEncoder& encoder,
                                 const TextReader& read = read_utf8_file);

/// Makes one request for each prompt.
/// @param prompts must outlive the requests
/// @returns the requests, in the order of the prompts
/// @throws Error(kInvalidArgument) as check_request(), with the prompt's place in front
std::vector<GenerateRequest> generate_requests(std::span<const Prompt> prompts,
                                               std::int64_t max_new_tokens,
                                               const Sampling& sampling, const ModelConfig& config);

}  // namespace c2r
