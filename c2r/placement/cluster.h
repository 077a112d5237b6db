// The machines that experts are placed on: nodes of ranks, and what their links can carry.
//
// In text: `2x4` (2 nodes of 4 ranks, default links), or the path of a JSON file:
//   {"num_nodes": 2, "ranks_per_node": 4,
//    "intra_node": {"bandwidth_bytes_per_s": 400e9, "latency_s": 2e-6},
//    "inter_node": {"bandwidth_bytes_per_s": 50e9, "latency_s": 5e-6},
//    "device_flop_per_s": 400e12, "memory_bytes_per_s": 3e12}
// The first two keys are required. A link may also have "message_s". Another key is an error.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string_view>

#include "c2r/core/ids.h"

namespace c2r {

/// The largest group that this library works with; a rank x rank matrix of it takes 8 MiB.
inline constexpr std::int32_t kMaxRanks = 1024;

/// One level of the network, as every rank sees it: what one rank can send, and at the same time
/// receive, over it.
struct Link {
  double bandwidth_bytes_per_s = 0;
  double latency_s = 0;
  double message_s = 0;  // of a rank, for each message, in addition to its bytes

  bool operator==(const Link&) const = default;
};

/// Ranks are numbered node by node: node n holds ranks [n * ranks_per_node, (n + 1) * ...).
struct Cluster {
  std::int32_t num_nodes = 1;
  std::int32_t ranks_per_node = 1;
  // An NVLink generation and one 400 Gb/s adapter per rank; overridden by the user's figures.
  Link intra_node = {.bandwidth_bytes_per_s = 400e9, .latency_s = 2e-6};
  Link inter_node = {.bandwidth_bytes_per_s = 50e9, .latency_s = 5e-6};
  std::optional<double> device_flop_per_s;
  std::optional<double> memory_bytes_per_s;  // at which a device reads weights

  std::int32_t ep_size() const { return num_nodes * ranks_per_node; }
  std::int32_t node_of(RankId rank) const {
    return static_cast<std::int32_t>(rank) / ranks_per_node;
  }
  /// The rank of `node` with the same position in it as `rank` has in its own.
  RankId peer_on(std::int32_t node, RankId rank) const {
    return RankId{node * ranks_per_node + static_cast<std::int32_t>(rank) % ranks_per_node};
  }
  bool operator==(const Cluster&) const = default;
};

/// Checks that `cluster` has 1 to kMaxRanks ranks, positive bandwidths and rates, and latencies of
/// at least 0.
/// @throws Error(kInvalidArgument), naming the field
void check_cluster(const Cluster& cluster);

/// @param text "NODESxRANKS", such as 2x4
/// @returns a cluster of that shape with the default links
/// @throws Error(kInvalidArgument)
Cluster parse_cluster(std::string_view text);

/// Reads what `--cluster` takes.
/// @param text_or_path the path of a JSON file if it ends in `.json`, else as parse_cluster()
/// @throws Error(kInvalidArgument)
/// @throws Error(kInvalidFile) from a file
Cluster read_cluster(std::string_view text_or_path);

/// @param name of the link in its object, for messages
/// @param place where the value is from, for messages
/// @throws Error(kInvalidFile), naming the key
Link link_from_json(const nlohmann::ordered_json& json, std::string_view name,
                    std::string_view place);
/// @returns JSON that link_from_json() reads back as an equal link
nlohmann::ordered_json link_to_json(const Link& link);

/// @param place where the value is from, for messages
/// @throws Error(kInvalidFile), naming the key
Cluster cluster_from_json(const nlohmann::ordered_json& json, std::string_view place);

/// @returns JSON that cluster_from_json() reads back as an equal cluster
nlohmann::ordered_json cluster_to_json(const Cluster& cluster);

}  // namespace c2r
