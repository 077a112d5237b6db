// Writes collaborator lists as JSON.
#pragma once

#include <cstdint>
#include <span>

#include "c2r/core/ids.h"
#include "c2r/core/matrix.h"
#include "c2r/io/json.h"
#include "c2r/trace/trace.h"

namespace c2r {

/// @param header the model whose lists they are
/// @param lists the collaborators of each expert, best first. [num_layers] of [num_experts, top_t]
/// @returns the keys "model", "num_experts", "top_k", "top_t", "layer_indices" and "collaborators"
Json collaborators_json(const TraceHeader& header, std::span<const Matrix<ExpertId>> lists,
                        std::int32_t top_t);

}  // namespace c2r
