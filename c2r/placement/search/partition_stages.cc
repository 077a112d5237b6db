// Annealing of a partition in stages, whose samples of the token sets grow while the temperature
// falls.
//
// Outline of PartitionStages::anneal():
//   1. Where the work pays for a hot annealing on all sets, that is all: annealed_whole().
//   2. Else best_of_hot_starts(): several times anneal on pair counts, which are cheap and know all
//   tokens, and
//      then hot on a sample that is as large as the work pays for. Assignments of different starts
//      differ by some 2 %, however long each is annealed, so the best on all sets is kept.
//   3. cooled(): anneal it cooler and cooler on samples of growing size, at last on all sets. The
//   lower the
//      temperature, the fewer swaps are accepted, and only these visit sets.
// Loads are exact in every stage (SetIndex::sample()), so that the bound holds as well as on all
// sets.
#include "c2r/placement/search/partition_stages.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "c2r/placement/search/partition_level.h"

namespace c2r {
namespace {

// Measured on clustered routing of 64 to 256 experts.
constexpr double kHotShare = 0.6;  // of the work, for all starts
constexpr int kNumStarts = 4;
constexpr double kPairsShare = 0.3;   // of the work of a start
constexpr double kSwapsPerItem = 50;  // accepted ones, which annealing from a hot start needs
constexpr double kGrowth = 4;         // of the samples, from stage to stage
constexpr double kFewestSets = 200;   // of a sample
constexpr double kAfterPairs = 0.05, kAfterHot = 0.012, kColdest = 0.003;  // temperatures

}  // namespace

Quality partition_quality(const PartitionProblem& problem,
                          const std::vector<std::int32_t>& rank_of) {
  const PartitionCost cost = partition_cost(problem, rank_of);
  return problem.energy.quality(problem.energy.cost(cost.rank_copies, cost.node_copies),
                                cost.loads);
}

PartitionStages::PartitionStages(const SetIndex& index, const SearchLimits& limits)
    : index_(index), limits_(limits) {
  for (std::int32_t e = 0; e < index.num_experts(); ++e) {
    sets_per_expert_ += static_cast<double>(index.sets_of(e).size()) / index.num_experts();
  }
}

std::vector<std::int32_t> PartitionStages::anneal(const PartitionProblem& problem,
                                                  std::int64_t work, std::uint64_t seed,
                                                  const std::vector<std::int32_t>& start) {
  const auto all_work = static_cast<double>(work);
  // An accepted swap visits the sets of two experts, and each counts twice.
  const double hot_work = kSwapsPerItem * problem.num_items * (1 + 4 * sets_per_expert_);
  if (all_work >= hot_work) return annealed_whole(problem, work, seed, start);
  const double start_work = kHotShare * all_work / kNumStarts;
  const double share = (1 - kPairsShare) * start_work / hot_work;
  const double num_sets = std::max(kFewestSets, share * static_cast<double>(index_.num_sets()));
  auto hot = best_of_hot_starts(problem, start_work, num_sets, seed, start);
  auto cold = cooled(problem, (1 - kHotShare) * all_work, num_sets * kGrowth, seed, hot);
  return partition_quality(problem, cold) < partition_quality(problem, hot) ? cold : hot;
}

std::vector<std::int32_t> PartitionStages::anneal_on_pairs(const PartitionProblem& problem,
                                                           std::int64_t work, std::uint64_t seed,
                                                           const std::vector<std::int32_t>& start) {
  return anneal_pairs(problem, pairs_of(problem), {.work = work, .seed = seed}, limits_, start);
}

const Matrix<std::int64_t>& PartitionStages::pairs_of(const PartitionProblem& problem) {
  if (pairs_.rows() == 0) pairs_ = pair_counts(index_, problem.num_items);
  return pairs_;
}

std::vector<std::int32_t> PartitionStages::best_of_hot_starts(
    const PartitionProblem& problem, double work, double num_sets, std::uint64_t seed,
    const std::vector<std::int32_t>& start) {
  const SetIndex drawn = index_.sample(static_cast<std::int64_t>(num_sets), seed);
  PartitionProblem on_sample = problem;
  on_sample.index = &drawn;
  auto best = start;
  Quality best_quality = partition_quality(problem, start);
  for (int attempt = 0; attempt < kNumStarts && !limits_.reached(); ++attempt) {
    // The last start anneals with the full penalty, in case the bound is tight.
    PartitionEffort effort{.work = static_cast<std::int64_t>(kPairsShare * work),
                           .start_penalty = attempt + 1 < kNumStarts ? 0.1 : 1,
                           .seed = seed + static_cast<std::uint64_t>(attempt)};
    auto hot = anneal_pairs(problem, pairs_of(problem), effort, limits_, start);
    effort.work = static_cast<std::int64_t>((1 - kPairsShare) * work);
    effort.start_temperature = kAfterPairs;
    effort.end_temperature = kAfterHot;
    hot = anneal_partition(on_sample, effort, limits_, std::move(hot));
    const Quality met = partition_quality(problem, hot);
    if (met < best_quality) best_quality = met, best = std::move(hot);
  }
  return best;
}

std::vector<std::int32_t> PartitionStages::annealed_whole(
    const PartitionProblem& problem, std::int64_t work, std::uint64_t seed,
    const std::vector<std::int32_t>& start) const {
  PartitionEffort effort{.work = work, .start_penalty = 0.1, .seed = seed};
  auto rank_of = anneal_partition(problem, effort, limits_, start);
  const Quality met = partition_quality(problem, rank_of);
  if (met.violation == 0) return rank_of;
  effort.start_penalty = 1;  // the bound is tight: the full penalty from the beginning
  auto tight = anneal_partition(problem, effort, limits_, start);
  return partition_quality(problem, tight) < met ? tight : rank_of;
}

std::vector<std::int32_t> PartitionStages::cooled(const PartitionProblem& problem, double work,
                                                  double num_sets, std::uint64_t seed,
                                                  std::vector<std::int32_t> rank_of) const {
  const auto all_sets = static_cast<double>(index_.num_sets());
  const int num_stages =
      1 +
      std::max(0, static_cast<int>(std::ceil(std::log(all_sets / num_sets) / std::log(kGrowth))));
  const double fall = std::pow(kColdest / kAfterHot, 1.0 / num_stages);
  double temperature = kAfterHot;
  for (int stage = 0; stage < num_stages && !limits_.reached(); ++stage, num_sets *= kGrowth) {
    PartitionProblem on_sample = problem;
    std::optional<SetIndex> drawn;
    if (stage + 1 < num_stages) {
      drawn = index_.sample(static_cast<std::int64_t>(num_sets), seed);
      on_sample.index = &*drawn;
    }
    rank_of = anneal_partition(on_sample,
                               {.work = static_cast<std::int64_t>(work / num_stages),
                                .start_temperature = temperature,
                                .end_temperature = temperature * fall,
                                .seed = seed + static_cast<std::uint64_t>(stage)},
                               limits_, std::move(rank_of));
    temperature *= fall;
  }
  return rank_of;
}

}  // namespace c2r
