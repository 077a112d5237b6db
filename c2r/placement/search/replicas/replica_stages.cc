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
constexpr double kHottest = 0.1, kHeatEnd = 0.05, kColdEnd = 0.004;  // temperatures
constexpr double kLaterRounds = 0.01;  // the temperature at which a later round begins
constexpr double kHotPenalty = 0.3;
constexpr int kNumRounds = 3;  // of the last stage

// The sets of an expert in a sample on which the hot stage exchanges every slot often.
double hot_sets_of_expert(std::int64_t num_slots, double work) {
  return kHeatShare * work / (kSwapsPerSlot * static_cast<double>(num_slots) * kWorkOfSwap);
}

}  // namespace

bool can_anneal_slots(std::int64_t num_slots, double work) {
  return hot_sets_of_expert(num_slots, work) >= kFewestOfExpert;
}

ReplicaState anneal_in_stages(const SetIndex& index, const Cluster& cluster,
                              const SearchEnergy& energy, bool is_fixed_to_nodes, double work,
                              std::uint64_t seed, const SearchLimits& limits,
                              const ReplicaState& start) {
  const std::int64_t num_slots = std::ssize(start.placement().slots.all());
  const auto all_sets = static_cast<double>(index.num_sets());
  const double share = hot_sets_of_expert(num_slots, work) * index.num_experts() /
                       static_cast<double>(index.num_set_choices());
  const auto search = [&](const SetIndex& sets, const ReplicaEffort& effort, ReplicaState from) {
    return search_replicas(sets, cluster, energy, is_fixed_to_nodes, effort, limits,
                           std::move(from));
  };
  const auto on_sample = [&](double num_sets, const ReplicaEffort& effort, const Placement& from) {
    const SetIndex drawn = index.sample(static_cast<std::int64_t>(num_sets), seed);
    ReplicaState state(drawn, cluster, from, is_fixed_to_nodes);
    return search(drawn, effort, std::move(state)).placement();
  };

  double num_sets = std::clamp(share * all_sets, std::min(kSmallestSample, all_sets), all_sets);
  Placement found = on_sample(num_sets,
                              {.work = static_cast<std::int64_t>(kHeatShare * work),
                               .seed = seed,
                               .start_temperature = kHottest,
                               .end_temperature = kHeatEnd,
                               .start_penalty = kHotPenalty},
                              start.placement());
  num_sets *= kSampleGrowth;
  const int num_stages = 1 + std::max(0, static_cast<int>(std::ceil(std::log(all_sets / num_sets) /
                                                                    std::log(kSampleGrowth))));
  const double fall = std::pow(kColdEnd / kHeatEnd, 1.0 / num_stages);
  ReplicaEffort effort{.work = static_cast<std::int64_t>((1 - kHeatShare) * work / num_stages),
                       .seed = seed,
                       .start_temperature = kHeatEnd,
                       .end_temperature = kHeatEnd * fall};
  for (int stage = 0; stage + 1 < num_stages; ++stage, num_sets *= kSampleGrowth) {
    found = on_sample(num_sets, effort, found);
    ++effort.seed;
    effort.start_temperature *= fall, effort.end_temperature *= fall;
  }
  effort.later_temperature = std::min(effort.start_temperature, kLaterRounds);
  effort.num_rounds = kNumRounds;
  return search(index, effort, ReplicaState(index, cluster, found, is_fixed_to_nodes));
}

}  // namespace c2r
