// Ranks collaborators, cuts the lists to T, and counts lists with too few collaborators.
#include "c2r/collaboration/collaborators.h"

#include <algorithm>

#include "c2r/collaboration/checks_internal.h"
#include "c2r/core/error.h"

namespace c2r {
namespace {

std::int64_t num_observed_collaborators(const CollaborationMatrix& counts, std::int64_t e) {
  const auto row = counts.row(e);
  return std::ranges::count_if(row, [](std::int64_t count) { return count > 0; }) -
         (counts(e, e) > 0 ? 1 : 0);
}

}  // namespace

Matrix<ExpertId> rank_collaborators(const CollaborationMatrix& counts) {
  check_is_square(counts);
  C2R_REQUIRE(counts.rows() >= 1, kInvalidArgument, "the collaboration matrix has no expert");
  Matrix<ExpertId> ranked(counts.rows(), counts.rows() - 1);
  for (std::int32_t e = 0; e < counts.rows(); ++e) {
    const auto row = ranked.row(e);
    std::int32_t other = 0;
    for (ExpertId& id : row) id = ExpertId{other == e ? ++other : other}, ++other;
    std::ranges::stable_sort(row, std::ranges::greater{},
                             [&](ExpertId id) { return counts(e, static_cast<std::int64_t>(id)); });
  }
  return ranked;
}

Matrix<ExpertId> top_collaborators(const CollaborationMatrix& counts, std::int32_t top_t) {
  const auto ranked = rank_collaborators(counts);
  C2R_REQUIRE(1 <= top_t && top_t <= ranked.cols(), kInvalidArgument,
              "top_t {} is not in [1, {}], the other experts", top_t, ranked.cols());
  Matrix<ExpertId> lists(ranked.rows(), top_t);
  for (std::int64_t e = 0; e < ranked.rows(); ++e) {
    std::ranges::copy_n(ranked.row(e).begin(), top_t, lists.row(e).begin());
  }
  return lists;
}

std::vector<Matrix<ExpertId>> collaborators_of_layers(std::span<const CollaborationMatrix> counts,
                                                      std::int32_t top_t) {
  std::vector<Matrix<ExpertId>> lists;
  lists.reserve(counts.size());
  for (const CollaborationMatrix& layer : counts) lists.push_back(top_collaborators(layer, top_t));
  return lists;
}

std::int32_t least_top_t(std::int32_t top_k) {
  return std::max(top_k - 1, 1);
}

void check_top_t(std::int32_t top_t, const TraceHeader& header, std::string_view option) {
  const std::int32_t least = least_top_t(header.top_k), most = header.num_experts - 1;
  C2R_REQUIRE(least <= top_t && top_t <= most, kInvalidArgument,
              "{} {} is not in [{}, {}]: a token of top-{} needs {} collaborators, and an expert "
              "has {}",
              option, top_t, least, most, header.top_k, header.top_k - 1, most);
}

ShortLists count_short_lists(std::span<const std::int32_t> layer_indices,
                             std::span<const CollaborationMatrix> counts, std::int32_t top_t) {
  C2R_REQUIRE(layer_indices.size() == counts.size(), kInvalidArgument,
              "there are counts of {} layers, but {} layer indices", counts.size(),
              layer_indices.size());
  ShortLists lists;
  for (std::size_t layer = 0; layer < counts.size(); ++layer) {
    check_is_square(counts[layer]);
    std::int64_t most = 0;
    for (std::int64_t e = 0; e < counts[layer].rows(); ++e) {
      const std::int64_t known = num_observed_collaborators(counts[layer], e);
      most = std::max(most, known);
      lists.num_short += known < top_t ? 1 : 0;
      ++lists.num_lists;
    }
    C2R_REQUIRE(most > 0, kInvalidArgument,
                "layer {}: no token chose two experts, so nothing is known of collaborators",
                layer_indices[layer]);
  }
  return lists;
}

std::string short_lists_text(const ShortLists& lists, std::int32_t top_t, std::string_view option) {
  return fmt::format(
      "{} of {} experts were chosen together with fewer than {} others; their lists are filled up "
      "by expert id: count more tokens, or take a smaller {}",
      lists.num_short, lists.num_lists, top_t, option);
}

}  // namespace c2r
