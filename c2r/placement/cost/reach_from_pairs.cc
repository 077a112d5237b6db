// Reach from pair counts. The estimate for top_k > 2 is the lower bound of Dawson and Sankoff
// ("An inequality for probabilities", Proc. AMS 18, 1967) on a union of events A_e:
//   P(union) >= 2 / (m + 1) S1 - 2 / (m (m + 1)) S2,  m = 1 + floor(2 S2 / S1),
// with S1 the sum of the loads and S2 of the pair counts within a rank. It is exact if every token
// that reaches the rank chose m or m + 1 experts there, hence for top_k <= 2.
#include <algorithm>

#include "c2r/core/at.h"
#include "c2r/core/error.h"
#include "c2r/placement/cost/reach.h"

namespace c2r {
namespace {

// Of one group of experts that share a rank or a node.
struct Sums {
  std::int64_t loads = 0, pairs = 0, largest_load = 0;
};

std::int64_t count_tokens(const Sums& sums) {
  if (sums.loads == 0) return 0;
  const std::int64_t m = 1 + 2 * sums.pairs / sums.loads;
  const std::int64_t twice_above = 2 * (2 * m * sums.loads - 2 * sums.pairs);
  const std::int64_t below = m * (m + 1);
  return std::max(sums.largest_load, (twice_above + below) / (2 * below));  // rounds to nearest
}

// [num_groups], expert e being in group_of[e].
std::vector<Sums> sum_by_group(const CollaborationMatrix& counts,
                               std::span<const std::int64_t> group_of, std::int64_t num_groups) {
  std::vector<Sums> sums(static_cast<std::size_t>(num_groups));
  for (std::int64_t a = 0; a < counts.rows(); ++a) {
    const std::int64_t group = at(group_of, a);
    Sums& s = at(sums, group);
    s.loads += counts(a, a);
    s.largest_load = std::max(s.largest_load, counts(a, a));
    for (std::int64_t b = a + 1; b < counts.cols(); ++b) {
      if (at(group_of, b) == group) s.pairs += counts(a, b);
    }
  }
  return sums;
}

void fill_home(const CollaborationMatrix& counts, const Cluster& cluster,
               std::span<const RankId> rank_of, std::int64_t home, Reach& reach) {
  std::vector<std::int64_t> rank(rank_of.size()), node(rank_of.size());
  for (std::size_t e = 0; e < rank.size(); ++e) {
    rank[e] = static_cast<std::int64_t>(index(rank_of[e]));
    node[e] = cluster.node_of(rank_of[e]);
  }
  const auto by_rank = sum_by_group(counts, rank, cluster.ep_size());
  for (std::size_t r = 0; r < by_rank.size(); ++r) {
    reach.choices_on_rank(home, std::int64_t(r)) = by_rank[r].loads;
    reach.tokens_on_rank(home, std::int64_t(r)) = count_tokens(by_rank[r]);
  }
  for (std::size_t e = 0; e < rank.size(); ++e) {
    const auto expert = static_cast<std::int64_t>(e);
    reach.choices_of_expert(expert, rank[e]) += counts(expert, expert);
  }
  const auto by_node = sum_by_group(counts, node, cluster.num_nodes);
  for (std::size_t n = 0; n < by_node.size(); ++n) {
    reach.tokens_on_node(home, std::int64_t(n)) = count_tokens(by_node[n]);
  }
}

// Every home gets what the first one has.
void copy_first_home(Reach& reach) {
  const std::int64_t num_homes = reach.tokens_on_rank.rows();
  for (auto* counts : {&reach.choices_on_rank, &reach.tokens_on_rank, &reach.tokens_on_node}) {
    for (std::int64_t home = 1; home < num_homes; ++home) {
      std::ranges::copy(counts->row(0), counts->row(home).begin());
    }
  }
  for (std::int64_t& count : reach.choices_of_expert.all()) count *= num_homes;
}

}  // namespace

Reach reach_from_pairs(const CollaborationMatrix& counts, std::int64_t num_tokens,
                       std::int32_t top_k, const Placement& placement,
                       const TrafficModel& traffic) {
  C2R_REQUIRE(counts.rows() == placement.num_experts && counts.cols() == placement.num_experts,
              kInvalidArgument, "the pair counts are of {} experts, but the placement is for {}",
              counts.rows(), placement.num_experts);
  C2R_REQUIRE(
      traffic.homes == Homes::kUniform, kInvalidArgument,
      "pair counts do not say which sequence a token is of: take homes uniform, or a trace");
  ReplicaChooser chooser(placement, traffic);
  C2R_REQUIRE(chooser.ignores_token(), kInvalidArgument,
              "pair counts cannot predict the replica rule {}: take local-first, or a trace",
              name_of(traffic.replica_rule));

  const std::int64_t ep_size = traffic.cluster.ep_size();
  Reach reach{.is_exact = top_k <= 2,
              .denominator = ep_size,
              .num_tokens = std::vector<std::int64_t>(std::size_t(ep_size), num_tokens),
              .choices_on_rank = {ep_size, ep_size},
              .tokens_on_rank = {ep_size, ep_size},
              .tokens_on_node = {ep_size, traffic.cluster.num_nodes},
              .choices_of_expert = {placement.num_experts, ep_size}};
  // A rule that ignores the token serves each expert by itself, so that all can be asked at once.
  std::vector<ExpertId> experts(static_cast<std::size_t>(placement.num_experts));
  std::vector<RankId> rank_of(experts.size());
  for (std::size_t e = 0; e < experts.size(); ++e) experts[e] = ExpertId{std::int32_t(e)};
  const std::int64_t num_different_homes = chooser.has_replicas() ? ep_size : 1;
  for (std::int64_t home = 0; home < num_different_homes; ++home) {
    chooser.choose(experts, RankId{static_cast<std::int32_t>(home)}, 0, rank_of);
    fill_home(counts, traffic.cluster, rank_of, home, reach);
  }
  if (!chooser.has_replicas()) copy_first_home(reach);
  return reach;
}

}  // namespace c2r
