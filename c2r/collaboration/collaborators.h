// Collaborator lists: whom each expert works with most. C2R routing draws from them.
#pragma once

#include "c2r/collaboration/collaboration.h"
#include "c2r/core/ids.h"
#include "c2r/core/matrix.h"

namespace c2r {

/// Row e ranks the other experts by how often they were chosen together with e, most often first;
/// equal counts go to the lower id. [num_experts, num_experts - 1]. The first T of a row are the
/// paper's Top-T list of e.
///
/// Cost: O(num_experts^2 log num_experts).
Matrix<ExpertId> rank_collaborators(const CollaborationMatrix& counts);

}  // namespace c2r
