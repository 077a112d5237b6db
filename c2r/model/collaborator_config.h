// Collaborator lists in a model's config.json, under the keys of the official C2R implementation.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "c2r/core/ids.h"
#include "c2r/core/matrix.h"
#include "c2r/io/json.h"
#include "c2r/plan/plan.h"

namespace c2r {

/// A Hugging Face config with the keys `top_t` and `collaborative_list`, whose lists rank all other
/// experts and end with the expert itself, as in the official configs.
/// @param header the model that the lists were counted for
/// @param ranked rank_collaborators() of each layer. [num_layers] of [num_experts, num_experts - 1]
/// @param place what the config is, for messages
/// @param warn is told if c2r itself cannot run the model
/// @throws Error(kInvalidArgument) if the config is of other experts, top_k or layers than the
///         header; Error(kInvalidFile) if it is no model's config
Json config_with_lists(Json config, const TraceHeader& header,
                       std::span<const Matrix<ExpertId>> ranked, std::int32_t top_t,
                       std::string_view place,
                       const std::function<void(const std::string& message)>& warn);

}  // namespace c2r
