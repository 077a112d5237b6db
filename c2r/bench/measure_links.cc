// Times messages of several sizes between partners on each level, and fits the links.
#include "c2r/bench/measure_links.h"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <vector>

#include "c2r/bench/median.h"
#include "c2r/core/error.h"
#include "c2r/transport/collectives.h"

namespace c2r {
namespace {

constexpr std::int64_t kSmallestBytes = 1 << 10, kLargestBytes = 4 << 20;

// The rank with which `rank` exchanges on a level. With an odd number of ranks there the last one
// has none and is its own partner.
std::int32_t partner_of(const Cluster& cluster, std::int32_t rank, bool is_intra) {
  const std::int32_t per_node = cluster.ranks_per_node;
  const std::int32_t position = is_intra ? rank % per_node : rank / per_node;
  const std::int32_t size = is_intra ? per_node : cluster.num_nodes;
  const std::int32_t other = position ^ 1;
  if (other >= size) return rank;
  return rank + (other - position) * (is_intra ? 1 : per_node);
}

// Nanoseconds of the slowest rank.
std::int64_t time_one(Transport& transport, std::int32_t partner, std::span<std::byte> send,
                      std::span<std::byte> recv) {
  barrier(transport, "before a message");
  const auto begin = std::chrono::steady_clock::now();
  const Outgoing out{.dst = RankId{partner}, .bytes = send};
  const Incoming in{.src = RankId{partner}, .bytes = recv};
  transport.start({&out, 1}, {&in, 1}, "a message")->wait();
  const auto end = std::chrono::steady_clock::now();
  std::int64_t nanoseconds =
      std::chrono::duration_cast<std::chrono::nanoseconds>(end - begin).count();
  all_reduce(transport, {&nanoseconds, 1}, Reduction::kMax, "the time of a message");
  return nanoseconds;
}

Link measure_level(Transport& transport, const Cluster& cluster, bool is_intra,
                   std::int32_t num_rounds) {
  const std::int32_t partner =
      partner_of(cluster, static_cast<std::int32_t>(transport.rank()), is_intra);
  std::vector<std::byte> send(kLargestBytes), recv(kLargestBytes);
  std::vector<LinkTime> times;
  for (std::int64_t bytes = kSmallestBytes; bytes <= kLargestBytes; bytes *= 4) {
    const auto size = static_cast<std::size_t>(bytes);
    std::vector<double> seconds;
    for (std::int32_t round = -1; round < num_rounds; ++round) {
      const auto nanoseconds =
          time_one(transport, partner, std::span(send).first(size), std::span(recv).first(size));
      if (round >= 0) seconds.push_back(1e-9 * static_cast<double>(nanoseconds));
    }
    times.push_back({.bytes = static_cast<double>(bytes), .seconds = median(seconds)});
  }
  return fit_link(times);
}

}  // namespace

Link fit_link(std::span<const LinkTime> times) {
  // With weights 1 / seconds^2: of a line y = a + b x.
  double w = 0, wx = 0, wy = 0, wxx = 0, wxy = 0;
  for (const auto& [x, y] : times) {
    C2R_REQUIRE(y > 0, kInvalidArgument, "a message of {} bytes took {} s", x, y);
    const double weight = 1 / (y * y);
    w += weight;
    wx += weight * x;
    wy += weight * y;
    wxx += weight * x * x;
    wxy += weight * x * y;
  }
  const double determinant = w * wxx - wx * wx;
  const double slope = determinant > 0 ? (w * wxy - wx * wy) / determinant : 0;
  C2R_REQUIRE(slope > 0, kInvalidArgument,
              "the times of {} sizes do not grow with the bytes, so no bandwidth can be fitted; "
              "measure more rounds",
              times.size());
  return {.bandwidth_bytes_per_s = 1 / slope, .latency_s = std::max(0.0, (wy - slope * wx) / w)};
}

Hardware measure_links(Transport& transport, const Cluster& cluster, std::int32_t num_rounds) {
  C2R_REQUIRE(cluster.ep_size() == transport.ep_size(), kInvalidArgument,
              "the cluster has {}x{} ranks, but {} take part", cluster.num_nodes,
              cluster.ranks_per_node, transport.ep_size());
  C2R_REQUIRE(cluster.ep_size() > 1, kInvalidArgument,
              "one rank has no links to measure: take part with at least two");
  const bool has_intra = cluster.ranks_per_node > 1, has_inter = cluster.num_nodes > 1;
  const Link intra = measure_level(transport, cluster, has_intra, num_rounds);
  const Link inter =
      has_intra && has_inter ? measure_level(transport, cluster, false, num_rounds) : intra;
  return {.intra_node = intra, .inter_node = inter};
}

}  // namespace c2r
