// Counting where tokens go, for one layer shaped like DeepSeek-V3's: the cost of every prediction.
#include <benchmark/benchmark.h>

#include <set>

#include "c2r/core/at.h"
#include "c2r/placement/cost/reach.h"
#include "c2r/placement/cost/volume.h"
#include "c2r/placement/testing_internal.h"

namespace c2r {
namespace {

constexpr std::int32_t kNumExperts = 256, kTopK = 8;
constexpr std::int64_t kNumTokens = 4096;

Matrix<ExpertId> uniform_choices(std::mt19937_64& rng) {
  Matrix<ExpertId> topk_idx(kNumTokens, kTopK);
  for (std::int64_t t = 0; t < kNumTokens; ++t) {
    std::ranges::copy(testing::random_choices(kNumExperts, kTopK, rng), topk_idx.row(t).begin());
  }
  return topk_idx;
}

// Without replicas: the distinct ranks of each token, and each as likely to be the home.
std::int64_t wire_copies_by_definition(const Matrix<ExpertId>& topk_idx,
                                       const Placement& placement) {
  const auto ranks_of = ranks_of_experts(placement);
  std::int64_t copies = 0;
  for (std::int64_t t = 0; t < topk_idx.rows(); ++t) {
    std::set<RankId> ranks;
    for (const ExpertId e : topk_idx.row(t)) {
      if (e != kNoExpert) ranks.insert(at(ranks_of, e)[0]);
    }
    copies += std::ssize(ranks) * (placement.ep_size() - 1);
  }
  return copies;
}

void BM_CountReach(benchmark::State& state, ReplicaRule rule, int redundant_slots) {
  std::mt19937_64 rng(1);
  const Cluster cluster = {.num_nodes = 2, .ranks_per_node = 8};
  Placement placement = place_contiguous(kNumExperts, cluster.ep_size());
  if (redundant_slots > 0)
    placement = testing::random_placement(kNumExperts, 16, redundant_slots, rng);
  const Matrix<ExpertId> topk_idx = uniform_choices(rng);
  const TrafficModel traffic = {.cluster = cluster, .replica_rule = rule};
  const auto count = [&] {
    ReachCounter counter(placement, traffic);
    counter.add(topk_idx, {});
    return counter.finish();
  };
  const Volume volume = volume_of(count(), traffic);
  if (!has_replicas(placement) &&
      volume.wire_copies() != wire_copies_by_definition(topk_idx, placement)) {
    return state.SkipWithError("the result is wrong");
  }

  for (auto _ : state) benchmark::DoNotOptimize(count());

  state.SetItemsProcessed(state.iterations() * kNumTokens);
  state.counters["wire_copies_per_token"] = volume.per_token(volume.wire_copies());
}
BENCHMARK_CAPTURE(BM_CountReach, no_replicas, ReplicaRule::kLocalFirst, 0);
BENCHMARK_CAPTURE(BM_CountReach, local_first, ReplicaRule::kLocalFirst, 4);
BENCHMARK_CAPTURE(BM_CountReach, fewest_ranks, ReplicaRule::kFewestRanks, 4);
BENCHMARK_CAPTURE(BM_CountReach, random, ReplicaRule::kRandom, 4);

}  // namespace
}  // namespace c2r
