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

/// Finds the ranks that run on this machine, by Linux's boot id. Collective.
/// @returns their ids, ascending, this rank's among them
/// @throws as Exchange::wait()
std::vector<RankId> ranks_of_this_machine(Transport& transport);

/// Divides the processors that this process may use by the ranks of this machine that may use the
/// same ones. Collective.
/// @returns at least 1
/// @throws as Exchange::wait()
int num_threads_of_rank(Transport& transport);

/// Adds up the weights that some ranks of one machine need: all but the routed experts, and the
/// experts in their slots. Weights that several ranks need count once, since the ranks share pages.
/// @param placements [num_moe_layers]
/// @returns bytes
/// @throws Error(kInvalidArgument) if the placements are not for the model's layers and experts, or
///         not for the ranks
std::int64_t weight_bytes(const Model& model, std::span<const Placement> placements,
                          std::span<const RankId> ranks);

/// Checks that a machine has memory for the weights of its ranks.
/// @param ranks the ranks of the machine
/// @param available_bytes memory that they may use together
/// @throws Error(kUnsupported) if the weights need more; Error(kInvalidArgument) as weight_bytes()
void check_memory(const Model& model, std::span<const Placement> placements,
                  std::span<const RankId> ranks, std::int64_t available_bytes);

struct RankMemory {
  std::optional<std::int64_t> resident_bytes;  // of the process; nothing if it is not known
  std::optional<std::int64_t> weight_bytes;    // of which pages of the checkpoint
};

/// Tells rank 0 how much memory each rank uses at the moment. Collective. Ranks of a machine share
/// pages, so their sum may be more than the machine has.
/// @returns [ep_size] on rank 0; nothing on the other ranks
/// @throws as Exchange::wait()
std::vector<RankMemory> gather_memory(Transport& transport, const Model& model);

}  // namespace c2r
