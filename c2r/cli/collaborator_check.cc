#include "c2r/cli/collaborator_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <iostream>

#include "c2r/core/error.h"

namespace c2r::cli {
namespace {

std::int64_t num_collaborators(const CollaborationMatrix& counts, std::int64_t e) {
  const auto row = counts.row(e);
  return std::ranges::count_if(row, [](std::int64_t count) { return count > 0; }) -
         (counts(e, e) > 0 ? 1 : 0);
}

}  // namespace

void check_observed_collaborators(const TraceHeader& header,
                                  std::span<const CollaborationMatrix> counts, std::int32_t top_t) {
  std::int64_t num_short = 0, num_lists = 0;
  for (std::size_t layer = 0; layer < counts.size(); ++layer) {
    std::int64_t most = 0;
    for (std::int64_t e = 0; e < counts[layer].rows(); ++e) {
      const std::int64_t known = num_collaborators(counts[layer], e);
      most = std::max(most, known);
      num_short += known < top_t ? 1 : 0;
      ++num_lists;
    }
    C2R_REQUIRE(most > 0, kInvalidArgument,
                "layer {}: no token chose two experts, so nothing is known of collaborators",
                header.layer_indices[layer]);
  }
  if (num_short == 0) return;
  std::cerr << fmt::format(
      "warning: {} of {} experts were chosen together with fewer than {} others; their lists are "
      "filled up by expert id: count more tokens, or take a smaller --top-t\n",
      num_short, num_lists, top_t);
}

}  // namespace c2r::cli
