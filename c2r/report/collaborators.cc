// Writes the collaborator lists of a model as JSON.
#include "c2r/report/collaborators.h"

#include "c2r/io/matrix_json.h"

namespace c2r {

Json collaborators_json(const TraceHeader& header, std::span<const Matrix<ExpertId>> lists,
                        std::int32_t top_t) {
  return {{"model", header.model},
          {"num_experts", header.num_experts},
          {"top_k", header.top_k},
          {"top_t", top_t},
          {"layer_indices", header.layer_indices},
          {"collaborators", matrices_to_json(lists)}};
}

}  // namespace c2r
