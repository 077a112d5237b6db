// What a user says of the copies and the batch whose bytes and times are to be predicted.
#pragma once

#include <cstdint>
#include <optional>

#include "c2r/placement/cluster.h"
#include "c2r/placement/cost/layer_time.h"
#include "c2r/placement/cost/volume.h"

namespace c2r {

struct TimeRequest {
  std::int64_t hidden = 0;        // values of a token; 0: neither bytes nor times
  std::int64_t intermediate = 0;  // the experts' inner width; 0: no times
  std::int64_t wire_width = 0;    // values of a copy; 0: hidden
  bool has_fp8_dispatch = false;  // with a scale for each 128 values; else bf16, as combine
  bool has_fp8_weights = false;   // else bf16
  std::optional<std::int64_t> batch_tokens;  // on all ranks together; without it all tokens
  Overlap overlap = Overlap::kAdded;
};

/// @returns the format of a copy; nothing without `hidden`
/// @throws Error(kInvalidArgument) if a number is negative
std::optional<CopyFormat> copy_format_of(const TimeRequest& request);

/// @returns how times are predicted; nothing without `intermediate`. Weights are read if the
///          cluster has memory_bytes_per_s
/// @throws Error(kInvalidArgument) if a number is negative, or if times are asked for without
///         `hidden` or the cluster's device_flop_per_s
std::optional<LayerTimeOptions> layer_time_of(const TimeRequest& request, const Cluster& cluster);

}  // namespace c2r
