// Computes medians, rates and link bounds of a layer benchmark.
#include "c2r/bench/layer_summary.h"

#include <algorithm>

#include "c2r/bench/median.h"
#include "c2r/engine/ranks/run_traffic.h"

namespace c2r {
namespace {

// The most that one rank sends or receives.
std::int64_t busiest_rank_bytes(const Matrix<std::int64_t>& bytes) {
  std::int64_t busiest = 0;
  for (std::int64_t rank = 0; rank < bytes.rows(); ++rank) {
    std::int64_t sent = 0, received = 0;
    for (std::int64_t peer = 0; peer < bytes.rows(); ++peer) {
      sent += bytes(rank, peer), received += bytes(peer, rank);
    }
    busiest = std::max({busiest, sent, received});
  }
  return busiest;
}

// The least time for what the busiest link carries. A rank has a link into its node and one out of
// it, each in both directions at once.
double link_bound_s(const Matrix<std::int64_t>& bytes, const Cluster& cluster) {
  double bound = 0;
  for (std::int32_t rank = 0; rank < cluster.ep_size(); ++rank) {
    double intra_sent = 0, intra_received = 0, inter_sent = 0, inter_received = 0;
    for (std::int32_t peer = 0; peer < cluster.ep_size(); ++peer) {
      const bool is_intra = cluster.node_of(RankId{rank}) == cluster.node_of(RankId{peer});
      (is_intra ? intra_sent : inter_sent) += double(bytes(rank, peer));
      (is_intra ? intra_received : inter_received) += double(bytes(peer, rank));
    }
    bound = std::max(
        {bound, std::max(intra_sent, intra_received) / cluster.intra_node.bandwidth_bytes_per_s,
         std::max(inter_sent, inter_received) / cluster.inter_node.bandwidth_bytes_per_s});
  }
  return bound;
}

// Three products of two operations a value in each expert, and in the shared one.
double busiest_flop(const LayerShape& shape, std::int64_t max_rows, std::int64_t num_tokens) {
  return 6.0 * double(shape.hidden) *
         (double(max_rows) * double(shape.intermediate) +
          double(num_tokens) * double(shape.shared_intermediate));
}

// Of the rank that exchanges longest: the phases that compute no expert.
double longest_exchange_s(const Matrix<double>& phase_seconds) {
  double longest = 0;
  for (std::int64_t rank = 0; rank < phase_seconds.rows(); ++rank) {
    double exchange_s = 0;
    for (std::size_t p = 0; p < kNumPhases; ++p) {
      if (!computes_experts(p)) exchange_s += phase_seconds(rank, std::int64_t(p));
    }
    longest = std::max(longest, exchange_s);
  }
  return longest;
}

}  // namespace

LayerSummary summarize(const LayerProblem& problem, std::int64_t num_tokens,
                       const VariantResult& result, const VariantResult& baseline) {
  LayerSummary s{.median_s = median(result.seconds),
                 .min_s = std::ranges::min(result.seconds),
                 .compute_s = std::ranges::min(result.compute_seconds),
                 .links_s = link_bound_s(result.dispatch_bytes, problem.cluster) +
                            link_bound_s(result.combine_bytes, problem.cluster),
                 .exchange_s = longest_exchange_s(result.phase_seconds),
                 .busiest_flop = busiest_flop(problem.shape, result.max_rows, num_tokens),
                 .dispatch_bytes = total_bytes(result.dispatch_bytes),
                 .combine_bytes = total_bytes(result.combine_bytes),
                 .metadata_bytes = total_bytes(result.metadata_bytes)};
  s.ratio = s.median_s / median(baseline.seconds);
  s.best_ratio = s.min_s / std::ranges::min(baseline.seconds);
  s.bytes_per_s =
      double(busiest_rank_bytes(result.dispatch_bytes) + busiest_rank_bytes(result.combine_bytes)) /
      s.exchange_s;
  return s;
}

}  // namespace c2r
