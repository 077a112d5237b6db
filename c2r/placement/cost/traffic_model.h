// The traffic model: what is assumed of a runtime when the copies of its tokens are counted.
#pragma once

#include <cstdint>
#include <string_view>

#include "c2r/placement/cluster.h"

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

/// Which rank serves each chosen expert of a token where experts have several replicas
/// (replica_rule.h applies it). The rule decides how many copies of the token are sent, so every
/// predicted number names it. Without replicas there is nothing to choose, and all rules agree.
enum class ReplicaRule {
  /// Fewest ranks, exactly: no choice of replicas needs fewer (cover.h), as the optimizer assumes.
  /// Ties go to the fewest nodes; then to ranks of which one is in the home node; then to the least
  /// load so far, summed over the token's experts; then to the lexicographically lowest ranks. An
  /// expert that two of the ranks host goes to the less loaded, then lower one. "Load so far"
  /// counts the (token, expert) choices that earlier tokens of the same home rank gave to a rank:
  /// the home rank knows it without asking another, so that a runtime can follow the rule and agree
  /// exactly.
  kFewestRanks,
  /// Each expert by itself: the home rank's own replica, else one in the home node, else one
  /// elsewhere. Where several are left, one is fixed for each (home rank, expert) by a seeded
  /// random assignment that is balanced: of the ranks that must choose among the same replicas, the
  /// numbers that use each differ by at most one. This is SGLang's `static` algorithm, but not its
  /// random numbers.
  kLocalFirst,
  /// Each (token, expert) by itself, all replicas equally likely: a hash of seed, token and expert,
  /// whatever the home rank, so that layers given the same seed draw alike. SGLang's `dynamic`,
  /// made repeatable.
  kRandom,
};

/// @returns "fewest-ranks", "local-first" or "random": the same in options, JSON and tables
std::string_view name_of(ReplicaRule rule);
/// @throws Error(kInvalidArgument), listing the names
ReplicaRule parse_replica_rule(std::string_view name);

/// Where tokens come from.
enum class Homes {
  kSequences,  // data parallel: all tokens of a sequence live on one rank; ranks take turns
  kUniform,    // every token is equally likely to live on each rank: the expectation
  kSignature,  // as a plan's signature assigns sequences: predict_waterfall() of a plan counts it
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
