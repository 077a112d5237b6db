// The volume model: how many hidden vectors a layer's dispatch and combine move under a placement.
//
// Per token, with home rank h and the distinct ranks R and nodes N that serve it (reach.h):
//   per-expert   one copy per choice, to the rank that serves it (MegaBlocks, Megatron alltoall,
//                DeepEP low-latency)
//   per-rank     one copy per rank of R (TensorRT-LLM, DeepEP direct)
//   per-node     first one copy to each node of N but h's own, to the rank there with h's position
//                in its node, the relay; then from the relay (in h's node: from h) one copy to each
//                rank of R in that node (DeepEP normal, Hybrid-EP)
//   all-gather   one copy to every rank, whatever the placement (vLLM's default, SGLang's `none`)
// A copy whose source is its destination is *local*. The *total* volume counts local copies, the
// *wire* volume does not. Combine returns one row for every copy, along the same links backwards.
// What a runtime sends with the same placement, rule and homes must equal these counts exactly.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "c2r/core/matrix.h"
#include "c2r/placement/cost/reach.h"
#include "c2r/placement/cost/traffic_model.h"

namespace c2r {

/// Copies in one layer under one traffic model. All counts are to be divided by `denominator`, see
/// Reach; per_token() does.
struct Volume {
  bool is_exact = true;  // false: from pair counts, so copies are at least these
  std::int64_t denominator = 1;
  std::int64_t num_tokens = 0;

  Matrix<std::int64_t> link_copies;    // [ep_size, ep_size], (src, dst); the diagonal is local
  std::vector<std::int64_t> sent;      // [ep_size], without local copies
  std::vector<std::int64_t> received;  // [ep_size], without local copies
  std::vector<std::int64_t> choices;   // [ep_size], (token, expert) pairs that the rank computes
  std::int64_t local_copies = 0;
  std::int64_t intra_node_copies = 0;  // between two ranks of a node
  std::int64_t inter_node_copies = 0;
  // Copies that end where experts are, local ones included. A copy that a relay forwards counts
  // once, so that this number is the same in modes per-rank and per-node: the fan-out of all
  // tokens.
  std::int64_t copies_to_experts = 0;

  std::int64_t wire_copies() const { return intra_node_copies + inter_node_copies; }
  std::int64_t total_copies() const { return local_copies + wire_copies(); }
  /// @returns a count of this volume divided by the tokens; 0 without tokens
  double per_token(std::int64_t count) const;
  bool operator==(const Volume&) const = default;
};

/// @param reach counted under `traffic`, in whatever copy mode
/// @returns the copies in traffic.copy_mode
/// @throws Error(kInvalidArgument) if the counts are of other numbers of ranks or nodes
///
/// Cost: O(ep_size^2).
Volume volume_of(const Reach& reach, const TrafficModel& traffic);

/// @returns Jain's index of fairness of the loads, (sum of x)^2 / (n sum of x^2): 1 if all are the
///          same or 0, and 1 / n if one of n has everything
double jain_index(std::span<const std::int64_t> loads);

/// The size of one copy. Element sizes may differ between the directions: fp8 there, bf16 back.
struct CopyFormat {
  std::int64_t hidden = 0;  // values that are sent; another number than the model's if it is padded
  std::int64_t dispatch_element_bytes = 2;
  std::int64_t combine_element_bytes = 2;
  std::int64_t dispatch_scale_bytes = 0;  // of the scales of a copy

  std::int64_t dispatch_copy_bytes() const {
    return hidden * dispatch_element_bytes + dispatch_scale_bytes;
  }
  std::int64_t combine_copy_bytes() const { return hidden * combine_element_bytes; }
};

/// @returns the format with copies dispatched in fp8: each 128 values have a scale of 4 bytes
CopyFormat with_fp8_dispatch(CopyFormat format);

/// Bytes in one layer and direction = copies x the bytes of a copy. Like the copies, they are to
/// be divided by `denominator`: of tokens whose homes are known they are whole bytes.
struct VolumeBytes {
  std::int64_t denominator = 1;
  std::int64_t intra_node_bytes = 0, inter_node_bytes = 0;
  std::int64_t local_bytes = 0;

  std::int64_t wire_bytes() const { return intra_node_bytes + inter_node_bytes; }
  std::int64_t total_bytes() const { return local_bytes + wire_bytes(); }
  bool operator==(const VolumeBytes&) const = default;
};

/// @throws Error(kInvalidArgument) if the format has a size below 1, or if there are 2^63 bytes or
///         more
VolumeBytes dispatch_bytes(const Volume& volume, const CopyFormat& format);
/// @throws as dispatch_bytes()
VolumeBytes combine_bytes(const Volume& volume, const CopyFormat& format);

/// @throws Error(kInvalidArgument) if a size is below 1
void check_copy_format(const CopyFormat& format);

}  // namespace c2r
