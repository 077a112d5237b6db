// Annealing of a placement with replicas in stages, whose samples of the token sets grow while the
// temperature falls.
//
// Outline of anneal_in_stages():
//   1. hot: most of the work goes to a sample that is so small that every slot is exchanged often.
//   2. cooler and cooler on samples of growing size, at last on all sets. Only the last stage takes
//      rounds to approach a bound on the load: the loads of a sample are estimates.
#include "c2r/placement/search/replicas/replica_stages.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "c2r/placement/search/replicas/replica_search.h"

namespace c2r {
namespace {

// Measured on clustered routing of 64 and 128 experts, and on gpt-oss-20b.
constexpr double kHeatShare = 0.6;       // of the work
constexpr double kSwapsPerSlot = 60;     // accepted ones of the hot stage
constexpr double kWorkOfSwap = 16;       // for each set of an expert: two experts, served anew
constexpr double kFewestOfExpert = 32;   // sets of an expert in the hot sample: fewer mislead
constexpr double kSmallestSample = 200;  // of a sample
constexpr double kSampleGrowth = 4;      // of the samples, from stage to stage
constexpr double kHottest = 0.1, kHeatEnd = 0.05, kColdEnd = 0.007;  // temperatures
constexpr double kLaterRounds = 0.015;  // the temperature at which a later round begins
constexpr double kHotPenalty = 0.3;
// Of the last stage, in which settled loads differ from those that it tracks. Loads of ServedLoads
// differ more: a search that misses the bound by them is mended.
constexpr int kNumRounds = 3;

// The sets of an expert in a sample on which the hot stage exchanges every slot often.
double hot_sets_of_expert(std::int64_t num_slots, double work) {
  const double affordable =
      kHeatShare * work / (kSwapsPerSlot * static_cast<double>(num_slots) * kWorkOfSwap);
  return std::max(affordable, kFewestOfExpert);
}

}  // namespace

ReplicaState anneal_in_stages(const SetIndex& index, const Cluster& cluster,
                              const SearchEnergy& energy, bool is_fixed_to_nodes,
                              const ReplicaEffort& asked, const SearchLimits& limits,
                              const ReplicaState& start, const ServedLoads* served) {
  const auto work = static_cast<double>(asked.work);
  const std::int64_t num_slots =
      asked.movable.empty() ? std::ssize(start.placement().slots.all()) : std::ssize(asked.movable);
  const auto all_sets = static_cast<double>(index.num_sets());
  const double share = hot_sets_of_expert(num_slots, work) * index.num_experts() /
                       static_cast<double>(index.num_set_choices());
  const auto on_sample = [&](double num_sets, const ReplicaEffort& effort, const Placement& from) {
    const SetIndex drawn = index.sample(static_cast<std::int64_t>(num_sets), asked.seed);
    ReplicaState state(drawn, cluster, from, is_fixed_to_nodes);
    return search_replicas(drawn, cluster, energy, is_fixed_to_nodes, effort, limits,
                           std::move(state))
        .placement();
  };

  double num_sets = std::clamp(share * all_sets, std::min(kSmallestSample, all_sets), all_sets);
  ReplicaEffort effort = asked;
  effort.work = static_cast<std::int64_t>(kHeatShare * work);
  effort.start_temperature = kHottest, effort.end_temperature = kHeatEnd;
  effort.start_penalty = kHotPenalty;
  Placement found = on_sample(num_sets, effort, start.placement());
  num_sets *= kSampleGrowth;
  const int num_stages = 1 + std::max(0, static_cast<int>(std::ceil(std::log(all_sets / num_sets) /
                                                                    std::log(kSampleGrowth))));
  const double fall = std::pow(kColdEnd / kHeatEnd, 1.0 / num_stages);
  effort.work = static_cast<std::int64_t>((1 - kHeatShare) * work / num_stages);
  effort.start_temperature = kHeatEnd, effort.end_temperature = kHeatEnd * fall;
  effort.start_penalty = 1;
  for (int stage = 0; stage + 1 < num_stages; ++stage, num_sets *= kSampleGrowth) {
    found = on_sample(num_sets, effort, found);
    ++effort.seed;
    effort.start_temperature *= fall, effort.end_temperature *= fall;
  }
  effort.later_temperature = std::min(effort.start_temperature, kLaterRounds);
  effort.num_rounds = served == nullptr ? kNumRounds : 1;
  return search_replicas(index, cluster, energy, is_fixed_to_nodes, effort, limits,
                         ReplicaState(index, cluster, found, is_fixed_to_nodes), served);
}

}  // namespace c2r
