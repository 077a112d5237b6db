// Tests of hardware by name and from files.
#include "c2r/placement/hardware.h"

#include <gtest/gtest.h>

#include <set>

#include "c2r/core/testing.h"
#include "c2r/io/file.h"
#include "c2r/io/json.h"

namespace c2r {
namespace {

using testing::error_of;

TEST(Hardware, HasNamesOfItsOwnAndAttainableRates) {
  std::set<std::string_view> names;
  for (const NamedHardware& known : known_hardware()) {
    EXPECT_TRUE(names.insert(known.name).second) << known.name;
    EXPECT_EQ(read_hardware(known.name), known.hardware);
    check_cluster(with_hardware({}, known.hardware));
  }
  const Hardware h800 = read_hardware("h800-ib400");
  EXPECT_DOUBLE_EQ(h800.intra_node.bandwidth_bytes_per_s, 130e9);
  EXPECT_DOUBLE_EQ(h800.inter_node.bandwidth_bytes_per_s, 44.5e9);
  EXPECT_EQ(h800.inter_node.latency_s, 30e-6);
  EXPECT_NE(error_of([] { read_hardware("h\n800"); })
                .find("mi300x-ib400, or the path of a .json "
                      "file; not 'h\\n800'"),
            std::string::npos);
}

TEST(Hardware, IsReadBackFromItsFile) {
  const std::string path = testing::temporary_path("mine.json").string();
  const Hardware mine = {
      .intra_node = {.bandwidth_bytes_per_s = 1e9, .latency_s = 1e-6, .message_s = 2e-7},
      .inter_node = {.bandwidth_bytes_per_s = 2e8, .latency_s = 3e-5}};
  write_text_file(path, json_text(hardware_to_json(mine), 1));
  EXPECT_EQ(read_hardware(path), mine);
  write_text_file(path, R"({"intra_node": {"bandwidth_bytes_per_s": 1, "latency_s": 0}})");
  EXPECT_EQ(error_of([&] { read_hardware(path); }), path + ": the key 'inter_node' is missing");
}

TEST(Hardware, KeepsTheRatesOfTheClusterThatItDoesNotHave) {
  const Cluster cluster{.num_nodes = 2, .ranks_per_node = 4, .device_flop_per_s = 5.0};
  const Cluster changed = with_hardware(cluster, {.intra_node = {.bandwidth_bytes_per_s = 1},
                                                  .inter_node = {.bandwidth_bytes_per_s = 2},
                                                  .memory_bytes_per_s = 7.0});
  EXPECT_EQ(changed.ep_size(), 8);
  EXPECT_EQ(changed.inter_node.bandwidth_bytes_per_s, 2);
  EXPECT_EQ(changed.device_flop_per_s, 5.0);
  EXPECT_EQ(changed.memory_bytes_per_s, 7.0);
}

}  // namespace
}  // namespace c2r
