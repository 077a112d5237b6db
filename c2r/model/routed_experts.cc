#include "c2r/model/routed_experts.h"

#include <algorithm>
#include <vector>

namespace c2r {
namespace {

// Rows by expert: expert e has [offsets[e], offsets[e + 1]), in the order of its tokens.
struct Grouping {
  std::vector<std::int64_t> offsets;  // [num_experts + 1]
  Matrix<std::int64_t> row_of;        // [num_tokens, top_k]
};

Grouping group_by_expert(const Routing& routing) {
  Grouping grouping{
      .offsets = std::vector<std::int64_t>(static_cast<std::size_t>(routing.num_experts) + 1),
      .row_of = {routing.num_tokens(), routing.top_k()}};
  for (const ExpertId e : routing.topk_idx.all()) ++grouping.offsets[index(e) + 1];
  for (std::size_t e = 1; e < grouping.offsets.size(); ++e) {
    grouping.offsets[e] += grouping.offsets[e - 1];
  }
  std::vector<std::int64_t> next(grouping.offsets.begin(), grouping.offsets.end() - 1);
  for (std::int64_t t = 0; t < routing.num_tokens(); ++t) {
    for (std::int64_t k = 0; k < routing.top_k(); ++k) {
      grouping.row_of(t, k) = next[index(routing.topk_idx(t, k))]++;
    }
  }
  return grouping;
}

}  // namespace

void LocalExperts::run(const RoutedBatch& batch) {
  const auto& [moe_layer, experts, routing, x, sum, beside] = batch;
  const Grouping grouping = group_by_expert(routing);
  in_.reshape(routing.num_tokens() * routing.top_k(), x.cols());
  out_.reshape(in_.rows(), x.cols());
  gemm_->pool().run(x.rows(), [&](std::int64_t t, int) {
    for (const std::int64_t row : grouping.row_of.row(t)) {
      std::ranges::copy(batch.x.row(t), in_.row(row).begin());
    }
  });
  std::vector<ExpertRows> groups(beside.begin(), beside.end());
  for (std::size_t e = 0; e < experts.size(); ++e) {
    const auto begin = grouping.offsets[e], end = grouping.offsets[e + 1];
    groups.push_back({&experts[e], MatrixView<const float>(in_).rows(begin, end),
                      MatrixView<float>(out_).rows(begin, end)});
  }
  mlps_.run(groups);
  gemm_->pool().run(x.rows(), [&](std::int64_t t, int) {
    for (std::int64_t k = 0; k < batch.routing.top_k(); ++k) {
      add_weighted(out_.row(grouping.row_of(t, k)), batch.routing.topk_weights(t, k),
                   batch.sum.row(t));
    }
  });
}

}  // namespace c2r
