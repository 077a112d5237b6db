// The traffic model: what is assumed of a runtime when the copies of its tokens are counted.
#pragma once

#include <cstdint>
#include <string_view>

#include "c2r/placement/cluster.h"
#include "c2r/placement/cost/replica_rule.h"

namespace c2r {

/// How the copies of a token are sent (volume.h defines each mode).
enum class CopyMode { kPerExpert, kPerRank, kPerNode, kAllGather };

/// @returns "per-expert", "per-rank", "per-node" or "all-gather"
std::string_view name_of(CopyMode mode);
/// @throws Error(kInvalidArgument), listing the names
CopyMode parse_copy_mode(std::string_view name);

/// @returns what is assumed of a cluster where nothing else is said: per-node if its nodes have
///          several ranks, over whose faster links a copy can be forwarded; else per-rank, which is
///          then the same
CopyMode default_copy_mode(const Cluster& cluster);

/// Where tokens come from.
enum class Homes {
  kSequences,  // data parallel: all tokens of a sequence live on one rank; ranks take turns
  kUniform,    // every token is equally likely to live on each rank: the expectation
  kSignature,  // as a plan's signature assigns sequences; not counted by this library
};

/// @returns "sequences", "uniform" or "signature"
std::string_view name_of(Homes homes);
/// @throws Error(kInvalidArgument), listing the names
Homes parse_homes(std::string_view name);

/// Everything besides tokens and placement on which predicted copies depend. A caller makes one and
/// passes it to whatever counts or predicts; the counts themselves (Reach, Volume) do not repeat
/// it.
struct TrafficModel {
  Cluster cluster;
  CopyMode copy_mode = CopyMode::kPerRank;
  ReplicaRule replica_rule = ReplicaRule::kFewestRanks;  // which the optimizer assumes
  std::uint64_t seed = 0;                                // of the replica rule
  Homes homes = Homes::kUniform;

  bool operator==(const TrafficModel&) const = default;
};

/// @returns what the optimizer assumes of `cluster`: default_copy_mode(), fewest-ranks, uniform
TrafficModel default_traffic(const Cluster& cluster);

/// @returns `traffic` with another copy mode; tokens reach the same ranks in all modes
TrafficModel with_copy_mode(TrafficModel traffic, CopyMode mode);

}  // namespace c2r
