// The predicted time of one MoE layer under a placement: compute and communication of its slowest
// rank. It is a model for comparing placements: everything it returns is predicted, nothing
// measured.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "c2r/placement/cost/volume.h"

namespace c2r {

/// How a runtime puts communication and compute in time.
enum class Overlap {
  kAdded,       // dispatch, then experts, then combine
  kOverlapped,  // chunk by chunk: communication of one chunk under the compute of another
};

/// @returns "added" or "overlapped"
std::string_view name_of(Overlap overlap);
/// @throws Error(kInvalidArgument), listing the names
Overlap parse_overlap(std::string_view name);

struct LayerTimeOptions {
  CopyFormat format;
  double flop_per_choice = 0;  // of one expert on one token: flop_of_gated_mlp()
  Overlap overlap = Overlap::kAdded;
  /// Tokens of the batch whose time is asked for, if it is not the volume's: copies and choices are
  /// taken in proportion.
  std::optional<std::int64_t> batch_tokens;
  /// Bytes of the weights of an expert, which a device reads once for all tokens of the expert; 0:
  /// reading them takes no time.
  double weight_bytes_per_expert = 0;
  /// Each copy is a message of its own, as kernels for decoding send it. Otherwise the copies from
  /// one rank to another are one message.
  bool is_message_per_copy = false;
};

/// @returns the FLOPs of a gated expert on one token: three products of hidden x intermediate, two
///          FLOPs each
double flop_of_gated_mlp(std::int64_t hidden, std::int64_t intermediate);

struct PredictedLayerTime {
  double predicted_compute_s = 0;   // of the rank that takes longest
  double predicted_dispatch_s = 0;  // of the slowest link
  double predicted_combine_s = 0;
  double predicted_total_s = 0;
  RankId slowest_compute_rank{0};  // the lowest of equals

  bool operator==(const PredictedLayerTime&) const = default;
};

/// Predicts
///   compute  = max over ranks of max(choices x flop_per_choice / device_flop_per_s,
///                                    experts x weight_bytes_per_expert / memory_bytes_per_s)
/// where `experts` is how many of the rank's slots a token of the batch is expected to choose: the
/// sum over slots of 1 - (1 - choices of the slot / num_tokens)^batch_tokens;
///   dispatch = max over links of (bytes / bandwidth + messages x message_s + latency), where a
/// rank's links are one into its node and one out of it, each carrying what the rank sends and, at
/// once, what it receives; an idle link costs nothing. A copy of mode per-node that is forwarded
/// takes both links, which work at the same time. combine is the same backwards. Together they are
///   added:       dispatch + compute + combine
///   overlapped:  max(dispatch + combine, compute)
/// Fractions of copies, from uniform homes, count as such. Launches, the router, and congestion
/// beyond a rank's own links are not in it.
///
/// @param volume [ep_size, ep_size] links, in `cluster`
/// @param cluster needs device_flop_per_s, and memory_bytes_per_s if weights are read
/// @param choices_of_expert Reach::choices_of_expert; may be empty if weights are not read.
///        [num_experts, ep_size]
/// @throws Error(kInvalidArgument) if the cluster is another, or an option is missing or not valid
PredictedLayerTime predict_layer_time(const Volume& volume, const Cluster& cluster,
                                      const LayerTimeOptions& options,
                                      MatrixView<const std::int64_t> choices_of_expert = {});

}  // namespace c2r
