// The table of hardware, and the file of a user's own.
#include "c2r/placement/hardware.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <limits>
#include <vector>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"
#include "c2r/io/json.h"

namespace c2r {
namespace {

// @param intra_node,inter_node of the data sheet, bytes/s in one direction of a device
constexpr Hardware from_data_sheet(double intra_node, double inter_node, double flop_per_s,
                                   double memory_bytes_per_s) {
  return {.intra_node = {.bandwidth_bytes_per_s = kAttainedIntraNode * intra_node,
                         .latency_s = kExchangeLatencyS},
          .inter_node = {.bandwidth_bytes_per_s = kAttainedInterNode * inter_node,
                         .latency_s = kExchangeLatencyS},
          .device_flop_per_s = flop_per_s,
          .memory_bytes_per_s = memory_bytes_per_s};
}

// UCCL-EP's kernels queue each write for a thread of the CPU that posts it (ep/src/proxy.cpp).
// Fitted on its low-latency dispatch over EFA.
constexpr Hardware with_messages(Hardware hardware) {
  hardware.inter_node.message_s = 0.22e-6;
  return hardware;
}

constexpr NamedHardware kHardware[] = {
    {"a100-ib200", from_data_sheet(300e9, 25e9, 312e12, 2.039e12)},
    {"h800-ib400", from_data_sheet(200e9, 50e9, 989e12, 3.35e12)},
    {"h100-ib400", from_data_sheet(450e9, 50e9, 989e12, 3.35e12)},
    {"h200-ib400", from_data_sheet(450e9, 50e9, 989e12, 4.8e12)},
    {"h200-efa400", with_messages(from_data_sheet(450e9, 50e9, 989e12, 4.8e12))},
    {"b200-ib400", from_data_sheet(900e9, 50e9, 2250e12, 7.7e12)},
    {"b200-efa400", with_messages(from_data_sheet(900e9, 50e9, 2250e12, 7.7e12))},
    {"mi300x-ib400", from_data_sheet(448e9, 50e9, 1307e12, 5.3e12)}};

}  // namespace

std::span<const NamedHardware> known_hardware() {
  return kHardware;
}

Hardware read_hardware(std::string_view name_or_path) {
  if (name_or_path.ends_with(".json")) {
    return hardware_from_json(read_json_file(name_or_path), name_or_path);
  }
  std::vector<std::string_view> names;
  for (const NamedHardware& known : kHardware) {
    if (known.name == name_or_path) return known.hardware;
    names.push_back(known.name);
  }
  C2R_THROW(kInvalidArgument, "hardware is {}, or the path of a .json file; not '{}'",
            fmt::join(names, ", "), shown(name_or_path));
}

Hardware hardware_from_json(const Json& json, std::string_view place) {
  json_check_keys(json, {"intra_node", "inter_node", "device_flop_per_s", "memory_bytes_per_s"},
                  "the hardware", place);
  const auto rate = [&](std::string_view key) -> std::optional<double> {
    if (!json.contains(key)) return std::nullopt;
    return json_number(json.at(key), std::numeric_limits<double>::min(), key, place);
  };
  return {.intra_node = link_from_json(json_at(json, "intra_node", place), "intra_node", place),
          .inter_node = link_from_json(json_at(json, "inter_node", place), "inter_node", place),
          .device_flop_per_s = rate("device_flop_per_s"),
          .memory_bytes_per_s = rate("memory_bytes_per_s")};
}

Json hardware_to_json(const Hardware& hardware) {
  Json json = {{"intra_node", link_to_json(hardware.intra_node)},
               {"inter_node", link_to_json(hardware.inter_node)}};
  if (hardware.device_flop_per_s) json["device_flop_per_s"] = *hardware.device_flop_per_s;
  if (hardware.memory_bytes_per_s) json["memory_bytes_per_s"] = *hardware.memory_bytes_per_s;
  return json;
}

Cluster with_hardware(Cluster cluster, const Hardware& hardware) {
  cluster.intra_node = hardware.intra_node;
  cluster.inter_node = hardware.inter_node;
  if (hardware.device_flop_per_s) cluster.device_flop_per_s = hardware.device_flop_per_s;
  if (hardware.memory_bytes_per_s) cluster.memory_bytes_per_s = hardware.memory_bytes_per_s;
  return cluster;
}

}  // namespace c2r
