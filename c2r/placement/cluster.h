// The machines that experts are placed on: nodes of ranks, and what their links can carry.
#pragma once

#include <cstdint>
#include <optional>

#include "c2r/core/ids.h"

namespace c2r {

/// One level of the network, as every rank sees it.
struct Link {
  double bandwidth_bytes_per_s = 0;
  double latency_s = 0;

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

  std::int32_t ep_size() const { return num_nodes * ranks_per_node; }
  std::int32_t node_of(RankId rank) const {
    return static_cast<std::int32_t>(rank) / ranks_per_node;
  }
  bool operator==(const Cluster&) const = default;
};

}  // namespace c2r
