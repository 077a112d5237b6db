// Tests of clusters as text and as JSON, and what is refused.
#include "c2r/placement/cluster.h"

#include <gtest/gtest.h>

#include "c2r/core/testing.h"
#include "c2r/io/file.h"
#include "c2r/io/json.h"

namespace c2r {
namespace {

using testing::error_of;

TEST(Cluster, ParsesNodesTimesRanks) {
  const Cluster cluster = parse_cluster("2x4");
  EXPECT_EQ(cluster.num_nodes, 2);
  EXPECT_EQ(cluster.ranks_per_node, 4);
  EXPECT_EQ(cluster.ep_size(), 8);
  EXPECT_EQ(cluster.node_of(RankId{3}), 0);
  EXPECT_EQ(cluster.node_of(RankId{4}), 1);
  EXPECT_EQ(cluster.peer_on(1, RankId{2}), RankId{6});
  EXPECT_EQ(cluster.peer_on(0, RankId{7}), RankId{3});
  EXPECT_EQ(parse_cluster("1x1").ep_size(), 1);
}

TEST(Cluster, ReadsAJsonFileAndKeepsDefaultsForWhatItLeavesOut) {
  const auto path = testing::temporary_path("c.json");
  write_text_file(path, R"({"num_nodes": 2, "ranks_per_node": 4,
    "inter_node": {"bandwidth_bytes_per_s": 25e9, "latency_s": 0}, "device_flop_per_s": 1e12})");
  const Cluster cluster = read_cluster(path.string());
  EXPECT_EQ(cluster.ep_size(), 8);
  EXPECT_EQ(cluster.intra_node, Cluster{}.intra_node);
  EXPECT_EQ(cluster.inter_node, (Link{.bandwidth_bytes_per_s = 25e9, .latency_s = 0}));
  EXPECT_EQ(cluster.device_flop_per_s, 1e12);
  EXPECT_EQ(cluster_from_json(cluster_to_json(cluster), "round trip"), cluster);
}

TEST(Cluster, SaysWhatIsWrongWithText) {
  for (const auto* text :
       {"", "8", "x", "2x", "x4", "2x4x1", "-2x4", "2x4 ", "0x4", "2X4", "+2x4", "99999999999x1"}) {
    EXPECT_EQ(error_of([&] { parse_cluster(text); }),
              fmt::format("a cluster is NODESxRANKS, like 2x4 for 2 nodes of 4 ranks, with numbers "
                          "in [1, 1024], or the path of a .json file; not '{}'",
                          text));
  }
  EXPECT_EQ(error_of([] { parse_cluster("1024x2"); }),
            "a cluster of 1024x2 ranks: both numbers and their product must be in [1, 1024]");
}

TEST(Cluster, SaysWhatIsWrongWithJson) {
  const auto error = [](std::string_view text) {
    return error_of([&] { cluster_from_json(parse_json(text, "c.json"), "c.json"); });
  };
  EXPECT_EQ(error(R"({"num_nodes": 2})"), "c.json: the key 'ranks_per_node' is missing");
  EXPECT_EQ(error(R"({"num_nodes": 2, "ranks_per_node": 4, "rack": 1})"),
            "c.json: the cluster has the unknown key \"rack\"; the known ones are num_nodes, "
            "ranks_per_node, intra_node, inter_node, device_flop_per_s, "
            "memory_bytes_per_s");
  EXPECT_EQ(error(R"({"num_nodes": 0, "ranks_per_node": 4})"),
            "c.json: num_nodes is 0, but must be an integer in [1, 1024]");
  EXPECT_EQ(error(R"({"num_nodes": 64, "ranks_per_node": 64})"),
            "c.json: a cluster of 64x64 ranks has more than 1024");
  EXPECT_EQ(error(R"({"num_nodes": 1, "ranks_per_node": 4, "intra_node": 7})"),
            "c.json: intra_node is 7, but must be an object");
  EXPECT_EQ(error(R"({"num_nodes": 1, "ranks_per_node": 4,
                      "intra_node": {"bandwidth_bytes_per_s": 1, "latency_s": -1}})"),
            "c.json: intra_node.latency_s is -1, but must be a number of at least 0");
  EXPECT_EQ(error("[]"), "c.json: the cluster is [], but must be an object");
}

TEST(Cluster, ChecksWhatAProgramBuilt) {
  EXPECT_EQ(error_of([] { check_cluster({.intra_node = {.bandwidth_bytes_per_s = 0}}); }),
            "the cluster's intra_node bandwidth is 0 bytes/s, but must be positive");
  EXPECT_EQ(error_of([] { check_cluster({.device_flop_per_s = -1.0}); }),
            "the cluster's device_flop_per_s is -1, but must be positive");
}

}  // namespace
}  // namespace c2r
