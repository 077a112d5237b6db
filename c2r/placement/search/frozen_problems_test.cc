// Plans a dozen frozen problems with fixed work and compares the costs with bench/records.json, so
// that a change of the search that loses more than 0.1 % is seen. A change that means it updates
// the file in the same commit.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "c2r/io/json.h"
#include "c2r/placement/optimize.h"
#include "c2r/placement/search/optimize_problems_internal.h"

namespace c2r {
namespace {

#ifdef C2R_SANITIZED
constexpr bool kIsSanitized = true;  // some ten times: two problems
#else
constexpr bool kIsSanitized = false;
#endif

constexpr double kMostLoss = 0.001;  // of copy cost and imbalance

struct FrozenProblem {
  std::string name;
  ClusteredRouting routing;
  Cluster cluster;
  std::int32_t redundant_slots_per_rank = 0;
};

std::vector<FrozenProblem> clustered_problems() {
  std::vector<FrozenProblem> problems;
  const auto add = [&](std::int32_t num_experts, std::int32_t top_k, std::int64_t num_tokens,
                       const Cluster& cluster, std::int32_t redundant) {
    problems.push_back({.name = fmt::format("clustered {}/{}, {} tokens, {}x{}, {} redundant slots",
                                            num_experts, top_k, num_tokens, cluster.num_nodes,
                                            cluster.ranks_per_node, redundant),
                        .routing = {.num_experts = num_experts,
                                    .top_k = top_k,
                                    .num_tokens = num_tokens,
                                    .num_topics = num_experts / 4,
                                    .seed = 1},
                        .cluster = cluster,
                        .redundant_slots_per_rank = redundant});
  };
  for (const std::int32_t redundant : {0, 1}) {
    add(32, 4, 20'000, {1, 4}, redundant);
    add(64, 6, 1'344, {1, 8}, redundant);
    add(64, 6, 40'000, {1, 4}, redundant);
    add(64, 6, 40'000, {2, 4}, redundant);
    add(128, 8, 40'000, {1, 8}, redundant);
    add(256, 8, 40'000, {8, 8}, redundant);
  }
  return problems;
}

// The slots that hold another expert than with contiguous experts: those that must be loaded.
std::int64_t num_moved(const Placement& placement) {
  std::int64_t moved = 0;
  const std::int64_t base = (placement.num_experts + placement.ep_size() - 1) / placement.ep_size();
  for (std::int64_t rank = 0; rank < placement.ep_size(); ++rank) {
    for (const ExpertId e : placement.slots.row(rank)) {
      moved += static_cast<std::int64_t>(e) / base != rank;
    }
  }
  return moved;
}

// Prints what was reached and fails if it is worse than the record.
void compare_with_record(const Json& records, const std::string& name,
                         const OptimizedPlacement& met) {
  constexpr double kBytesPerCopy = 2 * 2 * 4096;  // bf16 there and back, a hidden size of 4096
  std::printf("%-55s copy cost %.4f, imbalance %.4f%s, %ld moves, %.0f bytes a token\n",
              name.c_str(), met.copy_cost, met.imbalance,
              met.meets_bounds ? "" : " (misses the bound)",
              static_cast<long>(num_moved(met.placement)), kBytesPerCopy * met.copies_per_token);
  ASSERT_TRUE(records.contains(name)) << "bench/records.json has no record of it";
  const Json& record = records.at(name);
  EXPECT_LE(met.copy_cost, record.at("copy_cost").get<double>() * (1 + kMostLoss))
      << name << ": more copies than recorded";
  EXPECT_GE(met.copy_cost, record.at("copy_cost").get<double>() * (1 - kMostLoss))
      << name << ": fewer copies than recorded; update bench/records.json";
  if (!met.meets_bounds) {
    EXPECT_LE(met.imbalance, record.at("imbalance").get<double>() * (1 + kMostLoss)) << name;
  }
}

TEST(FrozenProblems, AreNotPlannedWorseThanRecorded) {
  const Json records = read_json_file(std::filesystem::path(C2R_SOURCE_DIR) / "bench/records.json");
  auto problems = clustered_problems();
  if (kIsSanitized) problems.resize(2);
  for (const FrozenProblem& problem : problems) {
    PlacementObjective objective = objective_for(problem.cluster);
    objective.max_imbalance = 1.1;
    compare_with_record(
        records, problem.name,
        optimize_placement(clustered_token_sets(problem.routing), problem.cluster, objective,
                           {.redundant_slots_per_rank = problem.redundant_slots_per_rank}));
  }
}

}  // namespace
}  // namespace c2r
