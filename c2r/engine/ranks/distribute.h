// Distributes work that rank 0 has to all ranks, round by round.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "c2r/core/ids.h"
#include "c2r/transport/transport.h"

namespace c2r {

/// One unit of work, as the integers that are sent for it. Not empty.
using WorkItem = std::vector<std::int32_t>;

/// @returns the work item of a sequence of tokens
WorkItem work_item_of(std::span<const TokenId> tokens);
/// @returns the tokens of such a work item
std::vector<TokenId> tokens_of(std::span<const std::int32_t> work_item);

/// Gives each rank the next work item, in rank order: item w goes to rank w mod ep_size, as
/// homes_of_sequences() assigns sequences. The last round may have fewer items than ranks.
/// Collective. Without a transport each round is one item, for the caller.
///
/// @param transport null if all experts are in this process
/// @param next returns the next item, or nothing at the end; called on rank 0 only
/// @returns the item of this rank, or nothing after the last round. The item is empty if the round
///          has none for this rank, which takes part in the round's passes all the same.
/// @throws AgreedError on every rank, of what `next` throws, or kInvalidArgument if an item is
///         empty; without a transport what `next` throws, or Error(kInvalidArgument)
/// @throws as Exchange::wait()
/// Cost: two messages from rank 0 to each other rank, of 8 bytes, and of 4 bytes for each integer
/// of the item and 4 more.
std::optional<WorkItem> distribute(Transport* transport,
                                   const std::function<std::optional<WorkItem>()>& next);

}  // namespace c2r
