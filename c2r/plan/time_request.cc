// Makes the format of copies and the options of times from what a user says.
#include "c2r/plan/time_request.h"

#include "c2r/core/error.h"

namespace c2r {

std::optional<CopyFormat> copy_format_of(const TimeRequest& request) {
  C2R_REQUIRE(request.hidden >= 0 && request.intermediate >= 0 && request.wire_width >= 0,
              kInvalidArgument,
              "hidden, intermediate and wire_width are {}, {} and {}, but must be at least 0",
              request.hidden, request.intermediate, request.wire_width);
  if (request.hidden == 0) return std::nullopt;
  const CopyFormat format{.hidden = request.wire_width > 0 ? request.wire_width : request.hidden};
  return request.has_fp8_dispatch ? with_fp8_dispatch(format) : format;
}

std::optional<LayerTimeOptions> layer_time_of(const TimeRequest& request, const Cluster& cluster) {
  const auto format = copy_format_of(request);
  C2R_REQUIRE(request.intermediate > 0 || !request.batch_tokens, kInvalidArgument,
              "batch_tokens is for predicted times, which need hidden and intermediate");
  if (request.intermediate == 0) return std::nullopt;
  C2R_REQUIRE(format.has_value(), kInvalidArgument, "intermediate needs hidden");
  C2R_REQUIRE(cluster.device_flop_per_s.has_value(), kInvalidArgument,
              "intermediate asks for predicted times, but the cluster has no device_flop_per_s; "
              "give hardware, or a cluster with it");
  LayerTimeOptions time{.format = *format,
                        .flop_per_choice = flop_of_gated_mlp(request.hidden, request.intermediate),
                        .overlap = request.overlap,
                        .batch_tokens = request.batch_tokens};
  if (cluster.memory_bytes_per_s) {
    const double bytes_of_value = request.has_fp8_weights ? 1 : 2;
    time.weight_bytes_per_expert = 3.0 * static_cast<double>(request.hidden) *
                                   static_cast<double>(request.intermediate) * bytes_of_value;
  }
  return time;
}

}  // namespace c2r
