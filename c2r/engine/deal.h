// Work that the first rank has and all ranks share.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "c2r/core/ids.h"
#include "c2r/transport/transport.h"

namespace c2r {

/// A piece of work in the form in which it travels. Not empty.
using Piece = std::vector<std::int32_t>;

Piece piece_of(std::span<const TokenId> tokens);
std::vector<TokenId> tokens_of(std::span<const std::int32_t> piece);

/// Deals the next round of pieces, one to each rank and in rank order, so that the w-th piece goes
/// to rank w mod ep_size: as homes_of_sequences() deals sequences. The last round may be shorter.
/// Collective; without a transport every round is one piece, for the caller.
///
/// @param next the next piece, or nothing at the end; only called on rank 0
/// @returns this rank's piece; an empty one if the round has none for it, in which it takes part
/// all
///          the same; nothing if there is no round any more
/// @throws as Exchange::wait(), and what `next` throws
std::optional<Piece> deal(Transport* transport, const std::function<std::optional<Piece>()>& next);

}  // namespace c2r
