// All experts in this process: rows are grouped by expert, computed at once, and added up by token.
#include "c2r/model/moe/routed_experts.h"

#include <algorithm>
#include <vector>

#include "c2r/core/error.h"

namespace c2r {
namespace {

constexpr std::int64_t kNoRow = -1;

// Rows by expert: expert e has [offsets[e], offsets[e + 1]), in the order of its tokens.
struct Grouping {
  std::vector<std::int64_t> offsets;   // [num_experts + 1]
  std::vector<std::int32_t> token_of;  // [num_rows]
  Matrix<std::int64_t> row_of;         // [num_tokens, top_k], kNoRow where there is no choice
};

Grouping group_by_expert(const Routing& routing, std::size_t num_experts) {
  Grouping grouping{.offsets = std::vector<std::int64_t>(num_experts + 1),
                    .row_of = {routing.num_tokens(), routing.top_k(), kNoRow}};
  for (const ExpertId e : routing.topk_idx.all()) {
    if (e != kNoExpert) ++grouping.offsets[index(e) + 1];
  }
  for (std::size_t e = 1; e < grouping.offsets.size(); ++e) {
    grouping.offsets[e] += grouping.offsets[e - 1];
  }
  grouping.token_of.resize(static_cast<std::size_t>(grouping.offsets.back()));
  std::vector<std::int64_t> next(grouping.offsets.begin(), grouping.offsets.end() - 1);
  for (std::int64_t t = 0; t < routing.num_tokens(); ++t) {
    for (std::int64_t k = 0; k < routing.top_k(); ++k) {
      const ExpertId e = routing.topk_idx(t, k);
      if (e == kNoExpert) continue;
      const std::int64_t row = next[index(e)]++;
      grouping.row_of(t, k) = row;
      grouping.token_of[static_cast<std::size_t>(row)] = static_cast<std::int32_t>(t);
    }
  }
  return grouping;
}

}  // namespace

void LocalExperts::run(const RoutedBatch& batch) {
  const auto& [moe_layer, experts, routing, x, sum, shared_experts] = batch;
  C2R_REQUIRE(routing.num_tokens() == x.rows() && sum.rows() == x.rows(), kInvalidArgument,
              "x has {} rows and sum {}, but {} tokens are routed", x.rows(), sum.rows(),
              routing.num_tokens());
  check_topk_idx(routing.topk_idx, std::int32_t(experts.size()), routing.top_k());
  const Grouping grouping = group_by_expert(routing, experts.size());
  out_.reshape(grouping.offsets.back(), x.cols());
  std::vector<ExpertRows> groups(shared_experts.begin(), shared_experts.end());
  for (std::size_t e = 0; e < experts.size(); ++e) {
    const auto begin = grouping.offsets[e], end = grouping.offsets[e + 1];
    if (begin == end) continue;
    groups.push_back(
        {.expert = &experts[e],
         .x = {f32_rows(x),
               std::span(grouping.token_of).subspan(std::size_t(begin), std::size_t(end - begin))},
         .out = MatrixView<float>(out_).rows(begin, end)});
  }
  mlps_.run(groups);
  gemm_->pool().run(x.rows(), [&](std::int64_t t, int) {
    for (std::int64_t k = 0; k < batch.routing.top_k(); ++k) {
      if (grouping.row_of(t, k) == kNoRow) continue;
      add_weighted(out_.row(grouping.row_of(t, k)), batch.routing.topk_weights(t, k),
                   batch.sum.row(t));
    }
  });
}

}  // namespace c2r
