// Names of copy modes, replica rules and homes, and the traffic model where nothing else is said.
#include "c2r/placement/cost/traffic_model.h"

#include "c2r/core/enum_names.h"

namespace c2r {
namespace {

constexpr EnumName<CopyMode> kModes[] = {{CopyMode::kPerExpert, "per-expert"},
                                         {CopyMode::kPerRank, "per-rank"},
                                         {CopyMode::kPerNode, "per-node"},
                                         {CopyMode::kAllGather, "all-gather"}};
constexpr EnumName<ReplicaRule> kRules[] = {{ReplicaRule::kFewestRanks, "fewest-ranks"},
                                            {ReplicaRule::kLocalFirst, "local-first"},
                                            {ReplicaRule::kRandom, "random"}};
constexpr EnumName<Homes> kHomes[] = {{Homes::kSequences, "sequences"},
                                      {Homes::kUniform, "uniform"},
                                      {Homes::kSignature, "signature"}};

}  // namespace

std::string_view name_of(CopyMode mode) {
  return name_in(kModes, mode);
}

CopyMode parse_copy_mode(std::string_view name) {
  return parse_in(kModes, "a copy mode is", name);
}

CopyMode default_copy_mode(const Cluster& cluster) {
  const bool has_fast_level = cluster.num_nodes > 1 && cluster.ranks_per_node > 1;
  return has_fast_level ? CopyMode::kPerNode : CopyMode::kPerRank;
}

std::string_view name_of(ReplicaRule rule) {
  return name_in(kRules, rule);
}

ReplicaRule parse_replica_rule(std::string_view name) {
  return parse_in(kRules, "a replica rule is", name);
}

std::string_view name_of(Homes homes) {
  return name_in(kHomes, homes);
}

Homes parse_homes(std::string_view name) {
  return parse_in(kHomes, "homes are", name);
}

TrafficModel default_traffic(const Cluster& cluster) {
  return {.cluster = cluster, .copy_mode = default_copy_mode(cluster)};
}

TrafficModel with_copy_mode(TrafficModel traffic, CopyMode mode) {
  traffic.copy_mode = mode;
  return traffic;
}

}  // namespace c2r
