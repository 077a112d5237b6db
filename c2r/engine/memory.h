// Which processors and how much memory of its machine a rank may use, and which weights it needs.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "c2r/core/ids.h"
#include "c2r/model/model.h"
#include "c2r/placement/placement.h"
#include "c2r/transport/transport.h"

namespace c2r {

/// The ranks that run on this machine, this one among them, ascending. Collective.
/// Machines are told apart by Linux's boot id. @throws as Exchange::wait()
std::vector<RankId> ranks_of_this_machine(Transport& transport);

/// The processors that this process may use, divided by the ranks of this machine that may use the
/// same ones; at least 1. Collective. @throws as Exchange::wait()
int num_threads_of_rank(Transport& transport);

/// Bytes of the weights that some ranks together need: everything but the routed experts, and the
/// experts in their slots. What several need counts once, as ranks of one machine share its pages.
/// @param placements [num_moe_layers]
/// @throws Error(kInvalidArgument) if they are not for the model's layers and experts, or not for
/// the
///         ranks
std::int64_t weight_bytes(const Model& model, std::span<const Placement> placements,
                          std::span<const RankId> ranks);

/// @param ranks of a machine with `available_bytes` of memory for them
/// @throws Error(kUnsupported) if it cannot hold the weights that they need
void check_memory(const Model& model, std::span<const Placement> placements,
                  std::span<const RankId> ranks, std::int64_t available_bytes);

struct RankMemory {
  std::optional<std::int64_t> resident_bytes;  // of the process; nothing if it is not known
  std::optional<std::int64_t> weight_bytes;    // of which pages of the checkpoint
};

/// On rank 0 the memory of each rank now, elsewhere nothing. Collective. [ep_size]
/// Ranks of a machine share pages, so the sum may be more than it holds.
/// @throws as Exchange::wait()
std::vector<RankMemory> gather_memory(Transport& transport, const Model& model);

}  // namespace c2r
