// Collaborator lists: the experts that each expert is chosen with most often. C2R routing chooses
// from them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "c2r/collaboration/collaboration.h"
#include "c2r/core/ids.h"
#include "c2r/core/matrix.h"

namespace c2r {

/// Ranks the collaborators of each expert. The first T of a row are the paper's Top-T list.
/// @returns [num_experts, num_experts - 1]; row e holds the other experts by how often they were
///          chosen together with e, most often first; of equal counts the lower id is first
/// @throws Error(kInvalidArgument) if `counts` is not square or empty
///
/// Cost: O(num_experts^2 log num_experts).
Matrix<ExpertId> rank_collaborators(const CollaborationMatrix& counts);

/// @returns the Top-T lists of a layer, best first. [num_experts, top_t]
/// @throws Error(kInvalidArgument) if top_t is not in [1, num_experts - 1]
Matrix<ExpertId> top_collaborators(const CollaborationMatrix& counts, std::int32_t top_t);

/// @returns top_collaborators() of each layer. [num_layers]
/// @throws as top_collaborators()
std::vector<Matrix<ExpertId>> collaborators_of_layers(std::span<const CollaborationMatrix> counts,
                                                      std::int32_t top_t);

/// @returns the least T with which a token can choose top_k experts: max(1, top_k - 1)
std::int32_t least_top_t(std::int32_t top_k);

/// @param option what the caller calls T, for the message
/// @throws Error(kInvalidArgument) unless top_t is in [least_top_t(), num_experts - 1]
void check_top_t(std::int32_t top_t, const TraceHeader& header, std::string_view option = "top_t");

/// Lists of T collaborators that hold experts which were never chosen together with the list's own.
struct ShortLists {
  std::int64_t num_short = 0;
  std::int64_t num_lists = 0;  // of all layers
};

/// Counts short lists.
/// @param layer_indices the model's own index of each layer, for messages. [num_layers]
/// @param counts [num_layers]
/// @throws Error(kInvalidArgument) if no token of a layer chose two experts, if the counts are not
///         square, or if there are not as many indices as counts
ShortLists count_short_lists(std::span<const std::int32_t> layer_indices,
                             std::span<const CollaborationMatrix> counts, std::int32_t top_t);

/// @param option what the caller calls T
/// @returns a warning of short lists, which says what to do
std::string short_lists_text(const ShortLists& lists, std::int32_t top_t,
                             std::string_view option = "top_t");

}  // namespace c2r
