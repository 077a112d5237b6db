// Reads, checks and writes the description of a cluster.
#include "c2r/placement/cluster.h"

#include <cmath>
#include <limits>
#include <string>

#include "c2r/core/error.h"
#include "c2r/core/parse_integer.h"
#include "c2r/io/json.h"

namespace c2r {
namespace {

constexpr double kSmallest = std::numeric_limits<double>::min();

// The whole of `text` as a count in [1, kMaxRanks], or 0.
std::int32_t parse_count(std::string_view text) {
  const std::int64_t value = parse_integer(text).value_or(0);
  return 1 <= value && value <= kMaxRanks ? static_cast<std::int32_t>(value) : 0;
}

void check_link(const Link& link, std::string_view name) {
  C2R_REQUIRE(std::isfinite(link.bandwidth_bytes_per_s) && link.bandwidth_bytes_per_s >= kSmallest,
              kInvalidArgument, "the cluster's {} bandwidth is {} bytes/s, but must be positive",
              name, link.bandwidth_bytes_per_s);
  C2R_REQUIRE(std::isfinite(link.latency_s) && link.latency_s >= 0, kInvalidArgument,
              "the cluster's {} latency is {} s, but must be at least 0", name, link.latency_s);
  C2R_REQUIRE(std::isfinite(link.message_s) && link.message_s >= 0, kInvalidArgument,
              "the cluster's {} time of a message is {} s, but must be at least 0", name,
              link.message_s);
}

void check_rate(const std::optional<double>& rate, std::string_view name) {
  C2R_REQUIRE(!rate || (std::isfinite(*rate) && *rate >= kSmallest), kInvalidArgument,
              "the cluster's {} is {}, but must be positive", name, rate.value_or(0));
}

}  // namespace

void check_cluster(const Cluster& cluster) {
  const std::int64_t ranks = std::int64_t{cluster.num_nodes} * cluster.ranks_per_node;
  C2R_REQUIRE(cluster.num_nodes >= 1 && cluster.ranks_per_node >= 1 && ranks <= kMaxRanks,
              kInvalidArgument,
              "a cluster of {}x{} ranks: both numbers and their product must be "
              "in [1, {}]",
              cluster.num_nodes, cluster.ranks_per_node, kMaxRanks);
  check_link(cluster.intra_node, "intra_node");
  check_link(cluster.inter_node, "inter_node");
  check_rate(cluster.device_flop_per_s, "device_flop_per_s");
  check_rate(cluster.memory_bytes_per_s, "memory_bytes_per_s");
}

Cluster parse_cluster(std::string_view text) {
  const auto x = text.find('x');
  Cluster cluster{
      .num_nodes = parse_count(text.substr(0, x)),
      .ranks_per_node = x == std::string_view::npos ? 0 : parse_count(text.substr(x + 1))};
  C2R_REQUIRE(cluster.num_nodes > 0 && cluster.ranks_per_node > 0, kInvalidArgument,
              "a cluster is NODESxRANKS, like 2x4 for 2 nodes of 4 ranks, with numbers in [1, {}], "
              "or the path of a .json file; not '{}'",
              kMaxRanks, text);
  check_cluster(cluster);
  return cluster;
}

Cluster read_cluster(std::string_view text_or_path) {
  if (!text_or_path.ends_with(".json")) return parse_cluster(text_or_path);
  return cluster_from_json(read_json_file(text_or_path), text_or_path);
}

Link link_from_json(const Json& json, std::string_view name, std::string_view place) {
  json_check_keys(json, {"bandwidth_bytes_per_s", "latency_s", "message_s"}, name, place);
  const auto number = [&](std::string_view key, double least) {
    return json_number(json_at(json, key, place), least, fmt::format("{}.{}", name, key), place);
  };
  Link link{.bandwidth_bytes_per_s = number("bandwidth_bytes_per_s", kSmallest),
            .latency_s = number("latency_s", 0)};
  if (json.contains("message_s")) link.message_s = number("message_s", 0);
  return link;
}

Json link_to_json(const Link& link) {
  Json json = {{"bandwidth_bytes_per_s", link.bandwidth_bytes_per_s},
               {"latency_s", link.latency_s}};
  if (link.message_s > 0) json["message_s"] = link.message_s;
  return json;
}

Cluster cluster_from_json(const Json& json, std::string_view place) {
  json_check_keys(json,
                  {"num_nodes", "ranks_per_node", "intra_node", "inter_node", "device_flop_per_s",
                   "memory_bytes_per_s"},
                  "the cluster", place);
  const auto count = [&](std::string_view key) {
    return static_cast<std::int32_t>(
        json_integer(json_at(json, key, place), 1, kMaxRanks, key, place));
  };
  Cluster cluster{.num_nodes = count("num_nodes"), .ranks_per_node = count("ranks_per_node")};
  C2R_REQUIRE(std::int64_t{cluster.num_nodes} * cluster.ranks_per_node <= kMaxRanks, kInvalidFile,
              "{}: a cluster of {}x{} ranks has more than {}", place, cluster.num_nodes,
              cluster.ranks_per_node, kMaxRanks);
  if (json.contains("intra_node"))
    cluster.intra_node = link_from_json(json["intra_node"], "intra_node", place);
  if (json.contains("inter_node"))
    cluster.inter_node = link_from_json(json["inter_node"], "inter_node", place);
  if (json.contains("device_flop_per_s"))
    cluster.device_flop_per_s =
        json_number(json["device_flop_per_s"], kSmallest, "device_flop_per_s", place);
  if (json.contains("memory_bytes_per_s"))
    cluster.memory_bytes_per_s =
        json_number(json["memory_bytes_per_s"], kSmallest, "memory_bytes_per_s", place);
  return cluster;
}

Json cluster_to_json(const Cluster& cluster) {
  Json json = {{"num_nodes", cluster.num_nodes},
               {"ranks_per_node", cluster.ranks_per_node},
               {"intra_node", link_to_json(cluster.intra_node)},
               {"inter_node", link_to_json(cluster.inter_node)}};
  if (cluster.device_flop_per_s) json["device_flop_per_s"] = *cluster.device_flop_per_s;
  if (cluster.memory_bytes_per_s) json["memory_bytes_per_s"] = *cluster.memory_bytes_per_s;
  return json;
}

}  // namespace c2r
