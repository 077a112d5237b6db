// What movers of rows share, wherever their rows lie: the offsets of a way, and what an exchange
// sends and receives.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "c2r/dispatch/rows/row_mover.h"
#include "c2r/dispatch/rows/row_plan.h"
#include "c2r/transport/transport.h"

namespace c2r {

/// Where the rows for each rank begin, and those from each rank. [ep_size + 1]
struct WayOffsets {
  std::span<const std::int64_t> send, recv;
};

inline WayOffsets offsets_of_way(const RowPlan& plan, RowWay way) {
  if (way == RowWay::kCombine && plan.returns_choices) {
    return {plan.send_choice_offsets, plan.recv_choice_offsets};
  }
  return {plan.send_offsets, plan.recv_offsets};
}

struct ExchangeParts {
  std::vector<Outgoing> send;
  std::vector<Incoming> recv;
};

/// @param sent, received functions that return the bytes of the rows exchanged with a rank, as they
///        are named in dispatch; combine sends those that were received
/// @returns the parts for all `peers` but `rank` itself
template <class Sent, class Received>
ExchangeParts parts_of_exchange(RowWay way, std::span<const RankId> peers, RankId rank,
                                const Sent& sent, const Received& received) {
  ExchangeParts parts;
  for (const RankId peer : peers) {
    if (peer == rank) continue;
    const std::span<std::byte> there = sent(peer), back = received(peer);
    parts.send.push_back({peer, way == RowWay::kDispatch ? there : back});
    parts.recv.push_back({peer, way == RowWay::kDispatch ? back : there});
  }
  return parts;
}

}  // namespace c2r
