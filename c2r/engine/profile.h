// Records which experts a model chooses on text.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "c2r/core/progress.h"
#include "c2r/engine/engine.h"
#include "c2r/engine/requests/windows.h"

namespace c2r {

struct ProfileRequest {
  std::filesystem::path output;  // the trace
  std::string model_name;        // for its header
  std::int64_t window = 1024;    // longer sequences are cut into windows of so many tokens
  std::optional<std::int64_t> max_tokens;  // stop once so many are recorded
  bool records_token_ids = false;          // the trace then contains the text
};

struct ProfileResult {
  std::int64_t num_tokens = 0, num_sequences = 0;
};

/// Checks a request, as profile() does before its first pass.
/// @throws Error(kInvalidArgument) if the window does not fit the model's positions, or
///         `max_tokens` is negative
void check_request(const ProfileRequest& request, const ModelConfig& config);

/// Runs the model over every sequence and writes its choices, with their weights, as a trace. The
/// paper's procedure: long texts in windows of 1,024 tokens that do not see each other.
///
/// Collective: windows are distributed to the ranks in turn. Only rank 0 calls `next`, writes the
/// file and knows the result. The file does not depend on the number of ranks, if routing does not.
///
/// @param next returns the next sequence, or nothing at the end
/// @param progress counts tokens; the total is `max_tokens`, or not known
/// @returns the numbers of recorded tokens and sequences on rank 0; zeros on the other ranks
/// @throws as check_request(); Error(kInvalidArgument) if a token is out of range; then there is no
///         file at `output`
ProfileResult profile(Engine& engine, const NextSequence& next, const ProfileRequest& request,
                      Progress& progress);

}  // namespace c2r
