// What devices and links can do, by the name of the hardware or from a file.
//
// A file is JSON, as `c2r bench exchange --hardware-out` writes it:
//   {"intra_node": {"bandwidth_bytes_per_s": 130e9, "latency_s": 30e-6},
//    "inter_node": {"bandwidth_bytes_per_s": 44.5e9, "latency_s": 30e-6},
//    "device_flop_per_s": 989e12, "memory_bytes_per_s": 3.35e12}
// The two links are required. Another key is an error.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string_view>

#include "c2r/placement/cluster.h"

namespace c2r {

struct Hardware {
  Link intra_node, inter_node;  // as a kernel attains them
  std::optional<double> device_flop_per_s, memory_bytes_per_s;

  bool operator==(const Hardware&) const = default;
};

/// A row of the table of docs/cost_model.md, which says where each number is from.
struct NamedHardware {
  std::string_view name;
  Hardware hardware;
};

/// Links attain these shares of the data sheets' rates, and an exchange this latency: fitted on the
/// times of DeepEP's dispatch (docs/cost_model.md).
inline constexpr double kAttainedIntraNode = 0.65, kAttainedInterNode = 0.89;
inline constexpr double kExchangeLatencyS = 30e-6;

/// @returns the table, in the order of the document
std::span<const NamedHardware> known_hardware();

/// Reads what `--hardware` takes.
/// @param name_or_path a name of known_hardware(), or the path of a JSON file if it ends in `.json`
/// @throws Error(kInvalidArgument), listing the names
/// @throws Error(kInvalidFile) from a file
Hardware read_hardware(std::string_view name_or_path);

/// @param place where the JSON is from, for messages
/// @throws Error(kInvalidFile), naming the key, for what is no hardware
Hardware hardware_from_json(const nlohmann::ordered_json& json, std::string_view place);
/// @returns JSON that read_hardware() reads back as equal hardware
nlohmann::ordered_json hardware_to_json(const Hardware& hardware);

/// @returns the cluster with the links and rates of the hardware; rates that it does not have stay
Cluster with_hardware(Cluster cluster, const Hardware& hardware);

}  // namespace c2r
