// Counts the copies of each kernel of a backend, from one count of the ranks that tokens reach.
#include "c2r/plan/engines/engine_traffic.h"

#include <fmt/format.h>

namespace c2r {
namespace {

// The mean over layers of the copies on the wire.
double wire_copies(std::span<const Reach> reach_of_layers, const TrafficModel& traffic,
                   CopyMode mode) {
  std::vector<double> copies;
  for (const Reach& reach : reach_of_layers) {
    const Volume volume = volume_of(reach, with_copy_mode(traffic, mode));
    copies.push_back(volume.per_token(volume.wire_copies()));
  }
  return mean_over_layers(copies);
}

std::optional<WireCopies> copies_of(const ExchangeKernel& kernel, std::span<const Reach> reach,
                                    const TrafficModel& traffic) {
  if (!kernel.mode) return std::nullopt;
  return WireCopies{
      .dispatch = wire_copies(reach, traffic, *kernel.mode),
      .combine = wire_copies(reach, traffic, kernel.combine_mode.value_or(*kernel.mode))};
}

}  // namespace

double WireCopies::bytes(const CopyFormat& format) const {
  check_copy_format(format);
  return dispatch * static_cast<double>(format.dispatch_copy_bytes()) +
         combine * static_cast<double>(format.combine_copy_bytes());
}

PredictRequest for_engine(const EngineBackend& use, PredictRequest request) {
  TrafficModel& traffic = request.traffic;
  traffic.replica_rule = use.engine->replica_rule.value_or(traffic.replica_rule);
  const ExchangeKernel& kernel = kernel_of(use);
  if (request.layer_time) request.layer_time->is_message_per_copy = kernel.is_for_decoding;
  if (!kernel.mode) return request;
  traffic.copy_mode = *kernel.mode;
  request.base = fmt::format("{}, {}", use.engine->title, kernel.title);
  return request;
}

EngineTraffic predict_engine_traffic(const EngineBackend& use,
                                     std::span<const Placement> placements,
                                     const RoutedTokens& tokens, const TrafficModel& traffic,
                                     int num_threads, Progress& progress) {
  const auto contiguous = contiguous_placements(tokens.header(), traffic.cluster);
  const auto today = reach_of(tokens, contiguous, traffic, num_threads, progress);
  const auto planned = reach_of(tokens, placements, traffic, num_threads, progress);
  EngineTraffic result{.use = use, .num_layers = tokens.header().num_layers()};
  for (const ExchangeKernel& kernel : use.backend->kernels) {
    result.kernels.push_back({.kernel = kernel,
                              .today = copies_of(kernel, today, traffic),
                              .planned = copies_of(kernel, planned, traffic)});
  }
  return result;
}

}  // namespace c2r
